"""Pages of the runs table: a cursor holds the last run's place in the order, not the number of runs before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.core import signing

from experiments import run_search
from experiments.api.http.paging import cut, from_plain, load_cursor, to_plain
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
    places, last, first = cut(places, query.limit, backward, after is not None)
    return RunIds(
        [place.run for place in places],
        _encode(ordering, last, backward=False) if last else None,
        _encode(ordering, first, backward=True) if first else None,
    )


def _encode(ordering: Order, place: Place, *, backward: bool) -> str:
    values = [place.section, to_plain(place.value), place.run]
    return signing.dumps([_scope(ordering), backward, *values], salt="cursor")


def _decode(cursor: str, ordering: Order) -> tuple[bool, Place]:
    backward, section, value, run = load_cursor(cursor, _scope(ordering))
    return backward, Place(section, from_plain(value), run)


def _scope(ordering: Order) -> str:
    """A parameter that gets its first text value has one more section, so that its old cursors no longer match."""
    return f"{'-' if ordering.descending else ''}{ordering.name}/{len(ordering.sections)}"
