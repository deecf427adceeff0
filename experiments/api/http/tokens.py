"""Token authentication. Apart from the login views, since REST framework loads it before its own views."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed


class Token(TokenAuthentication):  # type: ignore[misc]  # knox is untyped
    """Knox's tokens; bytes that are not UTF-8 are an invalid token, not a server error."""

    def authenticate_credentials(self, token: bytes) -> Any:
        try:
            return super().authenticate_credentials(token)
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Whether it has expired. Knox would check all tokens of the user on every call; here login does that."""
        if auth_token.expiry is None or auth_token.expiry >= timezone.now():
            return False
        return bool(super()._cleanup_token(auth_token))
