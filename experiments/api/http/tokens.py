"""How a call proves who makes it. Apart from the log-in views: REST framework loads this before its own views."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed


class Token(TokenAuthentication):  # type: ignore[misc]  # knox is untyped
    """Knox's tokens; bytes that are not UTF-8 are a wrong token, not a server error."""

    def authenticate_credentials(self, token: bytes) -> Any:
        try:
            return super().authenticate_credentials(token)
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Is it expired? Knox would look through all of the user's tokens on every call; log-in does that here."""
        if auth_token.expiry is None or auth_token.expiry >= timezone.now():
            return False
        return bool(super()._cleanup_token(auth_token))
