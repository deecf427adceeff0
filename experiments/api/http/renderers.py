"""Renderers and the parser: JSON by orjson, Arrow streams unchanged, and request bodies of limited size."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import IO, Any

import orjson
from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer

from experiments.spec import FieldError
from experiments.spec.json_names import Place, duplicate_names

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
MAX_DEPTH = 32
MAX_DUPLICATES = 20  # duplicate names that one answer lists


def to_json(data: Any) -> bytes:
    """JSON bytes; numpy arrays are accepted, and non-finite numbers become null."""
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


class Json(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None  # JSON is UTF-8 by definition

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else to_json(data)


class Arrow(Json):
    """Views return finished bytes; a problem is still sent as JSON, with its own content type."""

    media_type = ARROW
    format = "arrow"
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return data if isinstance(data, bytes) else super().render(data)


class Csv(Arrow):
    media_type = CSV
    format = "csv"


class Parquet(Arrow):
    media_type = PARQUET
    format = "parquet"


class BoundedJson(JSONParser):
    """Reads at most DATA_UPLOAD_MAX_MEMORY_SIZE, which REST framework's own parser ignores. orjson also refuses NaN and
    lone surrogates, which would cause server errors later."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            body = _read(stream)
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"not valid JSON: {error}") from None
        _refuse_unstorable(data)
        if places := list(islice(duplicate_names(body), MAX_DUPLICATES)):
            raise DuplicateNames([FieldError(place, _duplicate(place)) for place in places])
        return data


def _read(stream: IO[Any] | HttpRequest) -> bytes:
    """`HttpRequest.body` checks the limit; a copy of it from REST framework was checked before."""
    return stream.body if isinstance(stream, HttpRequest) else bytes(stream.read())


def _duplicate(place: Place) -> str:
    return f"duplicate name '{place[-1]}' in the same object; keep one of them"


class DuplicateNames(ParseError):
    """The body has duplicate names in one object; `errors` points at each."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(error.message for error in errors))


def _refuse_unstorable(data: Any) -> None:
    """Refuse NULs, which PostgreSQL cannot store, and nesting that could exhaust Python's stack."""
    parts = [(data, 0)]
    while parts:
        part, depth = parts.pop()
        if depth > MAX_DEPTH:
            raise ParseError(f"the body is nested deeper than {MAX_DEPTH} levels")
        if isinstance(part, str) and "\0" in part:
            raise ParseError("the body contains the character U+0000, which cannot be stored")
        if isinstance(part, dict):
            parts += [(value, depth + 1) for pair in part.items() for value in pair]
        elif isinstance(part, list):
            parts += [(value, depth + 1) for value in part]
