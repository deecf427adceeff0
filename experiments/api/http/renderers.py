"""Bytes in, bytes out: JSON through orjson, Arrow streams as they are, and a body that has a limit."""

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
MAX_TWICE = 20  # names told that stand twice


def to_json(data: Any) -> bytes:
    """JSON bytes; numpy arrays go straight through and non-finite numbers become null."""
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
    """Views hand over finished bytes; a problem still goes out as JSON, with its own content type."""

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
    """Reads at most DATA_UPLOAD_MAX_MEMORY_SIZE. REST framework's own parser reads the stream past that
    setting; orjson also refuses NaN and lone surrogates, which would surface as server errors later."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            body = _read(stream)
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"not valid JSON: {error}") from None
        _refuse_unstorable(data)
        if places := list(islice(duplicate_names(body), MAX_TWICE)):
            raise NamedTwice([FieldError(place, _twice(place)) for place in places])
        return data


def _read(stream: IO[Any] | HttpRequest) -> bytes:
    """`HttpRequest.body` keeps the limit; where REST framework hands over a copy of it, it was kept before."""
    return stream.body if isinstance(stream, HttpRequest) else bytes(stream.read())


def _twice(place: Place) -> str:
    return f"'{place[-1]}' stands twice in the same object; keep one of them"


class NamedTwice(ParseError):
    """A name stands twice in one object of the body; `errors` points at each."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(error.message for error in errors))


def _refuse_unstorable(data: Any) -> None:
    """PostgreSQL cannot take a NUL, and no spec is nested as deeply as Python's stack is high."""
    waiting = [(data, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ParseError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, str) and "\0" in item:
            raise ParseError("the character U+0000 cannot be stored")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
