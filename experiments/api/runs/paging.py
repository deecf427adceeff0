"""Pages of the runs table: a cursor holds the last run's place in the order, not the number of runs before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser
from django.core import signing

from experiments import run_search
from experiments.api.http.paging import INVALID_CURSOR, OTHER_ORDERING
from experiments.api.http.problems import Invalid
from experiments.run_search import Order, Place

from .filters import RunQuery, conditions, order
from .names import check_names


@dataclass(frozen=True)
class RunIds:
    """The runs of one page in order, and the cursors of the pages beside it; None where there is no such page."""

    ids: list[int]
    next: str | None
    previous: str | None


def page(query: RunQuery, given: Mapping[str, str], user: AbstractBaseUser) -> RunIds:
    """The runs that match `query` and the families in `given`, and that the user may see. Raises Invalid."""
    ordering = order(query.ordering)
    check_names(query.ordering, given, user)
    backward, after = _decode(query.cursor, ordering) if query.cursor else (False, None)
    wanted = conditions(query, given, user)
    places = run_search.find(wanted, ordering, query.limit + 1, after, backward=backward)
    more, places = len(places) > query.limit, places[: query.limit]
    if backward:
        places.reverse()
    has_next, has_previous = (True, more) if backward else (more, after is not None)
    return RunIds(
        [place.run for place in places],
        _encode(ordering, places[-1], backward=False) if has_next and places else None,
        _encode(ordering, places[0], backward=True) if has_previous and places else None,
    )


def _encode(ordering: Order, place: Place, *, backward: bool) -> str:
    value = {"at": place.value.isoformat()} if isinstance(place.value, datetime) else place.value
    return signing.dumps([_scope(ordering), backward, place.section, value, place.run], salt="cursor")


def _decode(cursor: str, ordering: Order) -> tuple[bool, Place]:
    """The cursor is signed, so its values have the right types."""
    try:
        scope, *rest = signing.loads(cursor, salt="cursor")
    except signing.BadSignature:
        raise Invalid.at("cursor", INVALID_CURSOR) from None
    if scope != _scope(ordering):
        raise Invalid.at("cursor", OTHER_ORDERING)
    backward, section, value, run = rest
    return backward, Place(section, datetime.fromisoformat(value["at"]) if isinstance(value, dict) else value, run)


def _scope(ordering: Order) -> str:
    """A parameter that gets its first text value has one more section, so that its old cursors no longer match."""
    return f"{'-' if ordering.descending else ''}{ordering.name}/{len(ordering.sections)}"
