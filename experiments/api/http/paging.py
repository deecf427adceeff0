"""Keyset pages: a cursor holds the sort values of its row, so that rows which are added, removed or changed meanwhile
neither repeat nor hide others, and page 1,000 costs as much as page 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from django.core import signing
from django.db.models import F, Model, Q, QuerySet
from django.db.models.expressions import OrderBy
from pydantic import BaseModel
from rest_framework.request import Request

from .problems import Invalid
from .query import Paged

M = TypeVar("M", bound=Model)
R = TypeVar("R")


@dataclass(frozen=True)
class Key:
    """One sort key: a field or annotation of the queryset. Nulls come last, whatever the direction."""

    name: str
    descending: bool = False
    nullable: bool = False


class Page(BaseModel):
    """Base of every list's answer; subclasses type `results`."""

    next: str | None
    previous: str | None


def paginate(
    rows: QuerySet[M], keys: Sequence[Key], query: Paged, request: Request
) -> tuple[list[M], dict[str, str | None]]:
    """The rows of one page in order, and its `next` and `previous`. The last key must be unique."""
    backward, values = _decode(query.cursor, keys) if query.cursor else (False, None)
    ordered = rows.order_by(*(_order(key, backward) for key in keys))
    if values is not None:
        ordered = ordered.filter(_beyond(keys, values, backward))
    page, last, first = cut(list(ordered[: query.limit + 1]), query.limit, backward, values is not None)
    return page, {
        "next": link(request, _encode(keys, last, backward=False)) if last else None,
        "previous": link(request, _encode(keys, first, backward=True)) if first else None,
    }


def cut(rows: list[R], limit: int, backward: bool, has_cursor: bool) -> tuple[list[R], R | None, R | None]:
    """The page of `limit + 1` rows that were read, its last row where a page follows, and its first where one precedes
    it."""
    page, more = rows[:limit], len(rows) > limit
    if backward:
        page.reverse()
    has_next, has_previous = (True, more) if backward else (more, has_cursor)
    return page, page[-1] if has_next and page else None, page[0] if has_previous and page else None


def _order(key: Key, backward: bool) -> OrderBy:
    field = F(key.name)
    last = {"nulls_first": True} if backward else {"nulls_last": True}
    nulls = last if key.nullable else {}  # a plain ORDER BY keeps its index
    return field.desc(**nulls) if key.descending != backward else field.asc(**nulls)


def _beyond(keys: Sequence[Key], values: Sequence[Any], backward: bool) -> Q:
    """Rows after the cursor's, lexicographically: equal in the first keys and beyond in the next one."""
    whole, equal = Q(pk__in=[]), Q()
    for key, value in zip(keys, values, strict=True):
        past = _past(key, value, backward)
        if past is not None:
            whole |= equal & past
        equal &= Q(**{f"{key.name}__isnull": True}) if value is None else Q(**{key.name: value})
    return whole


def _past(key: Key, value: Any, backward: bool) -> Q | None:
    if value is None:
        return Q(**{f"{key.name}__isnull": False}) if backward else None
    lookup = "lt" if key.descending != backward else "gt"
    past = Q(**{f"{key.name}__{lookup}": value})
    return past | Q(**{f"{key.name}__isnull": True}) if key.nullable and not backward else past


def link(request: Request, cursor: str | None) -> str | None:
    """The address of the same list, starting at a cursor."""
    if cursor is None:
        return None
    given = request.query_params.copy()
    given["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{given.urlencode()}")


def _encode(keys: Sequence[Key], row: Model, backward: bool) -> str:
    values = [to_plain(getattr(row, key.name)) for key in keys]
    return signing.dumps([_scope(keys), backward, values], salt="cursor")


def _decode(cursor: str, keys: Sequence[Key]) -> tuple[bool, list[Any]]:
    backward, plain = load_cursor(cursor, _scope(keys))
    return backward, list(map(from_plain, plain))


def load_cursor(cursor: str, scope: str) -> list[Any]:
    """What follows the scope. The cursor is signed, so its values have the right types."""
    try:
        stored, *rest = cast(list[Any], signing.loads(cursor, salt="cursor"))
    except signing.BadSignature:
        raise Invalid.at("cursor", "invalid cursor; take it from `next` or `previous`") from None
    if stored != scope:
        raise Invalid.at("cursor", "cursor of another ordering; take it from `next` or `previous` of this one")
    return rest


def to_plain(value: Any) -> Any:
    return {"at": value.isoformat()} if isinstance(value, datetime) else value


def from_plain(value: Any) -> Any:
    return datetime.fromisoformat(value["at"]) if isinstance(value, dict) else value


def _scope(keys: Sequence[Key]) -> str:
    return ",".join(f"{'-' if key.descending else ''}{key.name}" for key in keys)
