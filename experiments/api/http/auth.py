"""Login and logout with knox tokens, which are stored hashed, expire and can be revoked."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from django.contrib.auth import authenticate, logout
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.utils import timezone
from knox.models import AuthToken
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from .base import View, answer
from .problems import Invalid
from .query import Query


class Credentials(BaseModel):
    """User name and password, where they are not sent as basic credentials."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    username: str = Field(min_length=1, max_length=150)
    password: str = Field(min_length=1, max_length=4096)


class NewToken(BaseModel):
    """Shown once: only its digest is stored."""

    token: str
    expiry: datetime | None


class Login(View[Query]):
    """Exchange basic credentials, or `{username, password}`, for a token. Too many failed attempts lock the user out
    for some time."""

    authentication_classes = ()
    permission_classes = ()
    body = Credentials
    answers = {"POST": (200, NewToken)}

    def post(self, request: Request) -> Response:
        user = _authenticate(request)
        AuthToken.objects.filter(user=user, expiry__lt=timezone.now()).delete()
        row, token = AuthToken.objects.create(user=user)
        user_logged_in.send(sender=type(user), request=request._request, user=user)
        return answer(NewToken(token=token, expiry=row.expiry))

    def get_authenticate_header(self, request: Request) -> str:
        return 'Basic realm="attnservice"'


class Logout(View[Query]):
    """End the token or the session of this call."""

    answers = {"POST": (204, None)}

    def post(self, request: Request) -> Response:
        if isinstance(request.auth, AuthToken):
            request.auth.delete()
        else:
            logout(request._request)
        return Response(status=204)


def _authenticate(request: Request) -> AbstractBaseUser:
    credentials = _basic(request) or _json(request)
    http = request._request
    user = authenticate(http, username=credentials.username, password=credentials.password)
    if http.__dict__.pop("axes_locked_out", False):  # else axes' middleware answers with a page of its own
        raise Throttled(detail="too many failed logins; try again later or ask an administrator")
    if user is None:
        raise AuthenticationFailed("the user name or the password is wrong")
    return user


def _basic(request: Request) -> Credentials | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        if "\0" in name + password:
            raise ValueError("PostgreSQL cannot look for a NUL")
        return Credentials(username=name, password=password)
    except (binascii.Error, ValueError):  # ValidationError and UnicodeDecodeError are ValueErrors
        raise AuthenticationFailed("the basic credentials cannot be decoded; send base64 of name:password") from None


def _json(request: Request) -> Credentials:
    try:
        return Credentials.model_validate(request.data)
    except ValidationError as error:
        raise Invalid.from_pydantic(error) from None
