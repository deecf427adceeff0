"""Pages of the runs table: a cursor holds where the last run stood in the order, not how many went before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractBaseUser
from django.core import signing

from experiments import run_search
from experiments.api.http.problems import Invalid
from experiments.run_search import Order, Place

from .filters import RunQuery, conditions, order
from .names import check_names


@dataclass(frozen=True)
class RunIds:
    """The runs of one page in order, and the cursors of its neighbours; None where there is no such page."""

    ids: list[int]
    next: str | None
    previous: str | None


def page(query: RunQuery, given: Mapping[str, str], user: AbstractBaseUser) -> RunIds:
    """What `query` and the families in `given` ask for, as far as the user may see it. Raises Invalid."""
    ordering = order(query.ordering)
    check_names(query.ordering, given, user)
    backward, after = _decode(query.cursor, ordering) if query.cursor else (False, None)
    wanted = conditions(query, given, user)
    found = run_search.find(wanted, ordering, query.limit + 1, after, backward=backward)
    more, found = len(found) > query.limit, found[: query.limit]
    if backward:
        found.reverse()
    has_next, has_previous = (True, more) if backward else (more, after is not None)
    return RunIds(
        [place.run for place in found],
        _encode(ordering, found[-1], backward=False) if has_next and found else None,
        _encode(ordering, found[0], backward=True) if has_previous and found else None,
    )


def _encode(ordering: Order, place: Place, *, backward: bool) -> str:
    value = {"at": place.value.isoformat()} if isinstance(place.value, datetime) else place.value
    return signing.dumps([_scope(ordering), backward, place.section, value, place.run], salt="cursor")


def _decode(cursor: str, ordering: Order) -> tuple[bool, Place]:
    """Signed, so that its values can be trusted to be of the right types."""
    try:
        scope, *rest = signing.loads(cursor, salt="cursor")
    except signing.BadSignature:
        raise Invalid.at("cursor", "is not one of ours; take it from `next` or `previous`") from None
    if scope != _scope(ordering):
        raise Invalid.at("cursor", "belongs to another ordering")
    backward, section, value, run = rest
    return backward, Place(section, datetime.fromisoformat(value["at"]) if isinstance(value, dict) else value, run)


def _scope(ordering: Order) -> str:
    """A parameter that has got its first text has one section more: its old cursors no longer fit."""
    return f"{'-' if ordering.descending else ''}{ordering.name}/{len(ordering.sections)}"
