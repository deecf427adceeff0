"""One section of an order, from a place on, until a page is full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet

from experiments.models import Run
from experiments.states import State

from .terms import Among, Beyond, Condition, NotAmong, Place, Section

FEW = 10_000  # runs that are looked up and sorted rather than met along the order
NEAR = 250  # rows of the first probe: where one run in five matches, they fill a page of fifty
FAR = 4000  # rows that are probed at most, where the hits so far promise a full page


@dataclass(frozen=True)
class Walk:
    """One section in one direction from one place on."""

    number: int
    section: Section
    descending: bool
    after: Place | None

    def led(self, lead: Condition, conditions: Sequence[Condition], limit: int) -> list[Place]:
        """At most `limit` hits among the lead's few runs."""
        walk = self._narrowed(lead)
        rows = walk._rows()
        if walk is self:
            rows = rows.filter(**{f"{self.section.run}__in": lead.ids()[: FEW + 1]})
        others = [condition for condition in conditions if condition is not lead]
        looks = {f"look_{at}": one.look(walk.section.run) for at, one in enumerate((*others, *self.section.without))}
        wanted = {f"{name}__isnull": at >= len(others) for at, name in enumerate(looks)}
        return [self._place(row) for row in rows.alias(**looks).filter(**wanted)[:limit]]

    def probe(self, conditions: Sequence[Condition], limit: int) -> tuple[list[Place], Walk | None]:
        """At most `limit` hits, and from where to scan where probing more is not worth while."""
        if not conditions and not self.section.without:
            return [self._place(row) for row in self._rows()[:limit]], None
        found: list[Place] = []
        walk, seen, size = self, 0, NEAR
        while size:
            rows = walk._looked_up(conditions, size)
            found += [place for place, hit in rows if hit]
            if len(found) >= limit or len(rows) < size:
                return found[:limit], None
            walk, seen = replace(walk, after=rows[-1][0]), seen + size
            size = _worth_probing(seen, len(found), limit)
        return found, walk

    def scan(self, conditions: Sequence[Condition], limit: int) -> list[Place]:
        """At most `limit` hits from here on, whatever it takes."""
        walk = self._narrowed(next((one for one in conditions if one.in_order), (*conditions, _EVERY)[0]))
        rows = walk._rows()
        for condition in conditions:
            if condition.rows is not walk.section.rows:
                rows = rows.filter(Among(walk.section.run, condition))
        for condition in walk.section.without:
            rows = rows.filter(NotAmong(walk.section.run, condition))
        return [self._place(row) for row in rows[:limit]]

    def _rows(self) -> QuerySet[Any, Any]:
        columns, sign = self.section.columns, "-" if self.descending else ""
        rows = self.section.rows.order_by(*(f"{sign}{column}" for column in reversed(columns)))
        if self.after is not None:
            rows = rows.filter(Beyond(self.section, self.after, descending=self.descending))
        return rows.values_list(*columns)

    def _place(self, row: Sequence[Any]) -> Place:
        return Place(self.number, row[1] if self.section.value else None, row[0])

    def _looked_up(self, conditions: Sequence[Condition], size: int) -> list[tuple[Place, bool]]:
        """The next rows, and whether the conditions let them through."""
        looks = [condition.look(self.section.run) for condition in (*conditions, *self.section.without)]
        names = {f"look_{at}": look for at, look in enumerate(looks)}
        rows = self._rows().annotate(**names).values_list(*self.section.columns, *names)[:size]
        first = len(self.section.columns)
        last = first + len(conditions)
        return [(self._place(row), all(row[first:last]) and not any(row[last:])) for row in rows]

    def _narrowed(self, narrow: Condition) -> Walk:
        """Rows of `Run` are wide: where they would be read for their ids alone, narrower rows stand in for them."""
        if self.section.value:
            return self
        return replace(self, section=replace(self.section, rows=narrow.rows, run=narrow.run))


def matching(conditions: Sequence[Condition]) -> QuerySet[Any, Any]:
    """The runs that all conditions let through, in no order."""
    first, *others = conditions
    rows = first.ids()
    for other in others:
        rows = rows.filter(Among(first.run, other))
    return rows


# Every run is in some state, and the index on states is narrow.
_EVERY = Condition(Run.objects.filter(state__in=list(State)), "pk")


def _worth_probing(seen: int, found: int, limit: int) -> int:
    """How many rows to probe next: those that should fill the page, or none where a scan is the safer bet."""
    wanted = seen * (limit - found) * 5 // (4 * found) if found else FAR
    return wanted if seen + wanted <= FAR else 0
