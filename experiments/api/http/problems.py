"""Errors as application/problem+json (RFC 9457), with a JSON pointer to each bad field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from pydantic import BaseModel, ValidationError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from experiments.lifecycle import NotAllowed
from experiments.spec import FieldError
from experiments.spec.errors import unknown_choice
from experiments.store import Unreadable
from experiments.submissions.submission import SubmissionError

PROBLEM = "application/problem+json"


class BadField(BaseModel):
    """`pointer` leads to the field of the body, or to the query parameter of that name."""

    pointer: str
    message: str


class Problem(BaseModel):
    """The body of every error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[BadField] = []


class Invalid(Exception):
    """The request is invalid; `errors` names every wrong field."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(f"{error.dotted}: {error.message}" for error in self.errors))

    @classmethod
    def at(cls, field: str, message: str) -> Invalid:
        return cls([FieldError((field,), message)])

    @classmethod
    def from_pydantic(cls, error: ValidationError) -> Invalid:
        return cls(FieldError(tuple(details["loc"]), _message(dict(details))) for details in error.errors())


def pointer(path: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901): `~` and `/` in a name are escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's exception handler; None leaves the error to Django as a server error."""
    set_rollback()
    match error:
        case Invalid() | SubmissionError():
            return _answer(400, "some fields are invalid", error.errors)
        case NotAllowed():
            return _answer(409, str(error))
        case Unreadable():
            return _answer(503, str(error))
        case Http404():
            return _answer(404, str(error) or "not found, or you may not see it")
        case RequestDataTooBig():
            return _answer(413, f"the body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes")
        case PermissionDenied():
            return _answer(403, str(error) or "you may see this but not change it")
        case exceptions.APIException():
            named = getattr(error, "errors", ())
            return _answer(error.status_code, _words(error.detail), named, headers=_headers(error))
    return None


def _answer(
    status: int, detail: str, errors: Iterable[FieldError] = (), headers: dict[str, str] | None = None
) -> Response:
    bad = [BadField(pointer=pointer(error.path), message=error.message) for error in errors]
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=bad)
    return Response(problem.model_dump(), status=status, headers=headers, content_type=PROBLEM)


def _headers(error: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    return headers


def _words(detail: Any) -> str:
    if isinstance(detail, dict):
        return "; ".join(f"{key}: {_words(value)}" for key, value in detail.items())
    return "; ".join(map(_words, detail)) if isinstance(detail, list) else str(detail)


def _message(details: dict[str, Any]) -> str:
    match details["type"]:
        case "extra_forbidden":
            return "unknown field; remove it"
        case "missing":
            return "this field is required"
        case "value_error":
            return str(details["ctx"]["error"])
        case "literal_error":
            return unknown_choice(details["input"], re.findall(r"'([^']*)'", details["ctx"]["expected"]))
        case "int_parsing":
            return f"must be a whole number; you gave {details['input']!r}"
    return str(details["msg"]).replace("Input should", "should")
