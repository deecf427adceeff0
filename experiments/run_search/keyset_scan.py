"""Keyset scan of one section of an order, from a place on, until a page is full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet, Subquery

from experiments.models import Run
from experiments.states import State

from .terms import Among, Beyond, Condition, NotAmong, OrderSection, Place

FEW = 10_000  # at most so many runs are looked up and sorted instead of scanned in order
NEAR = 250  # rows of the first probe: if one run in five matches, they fill a page of fifty
FAR = 4000  # rows probed at most, if the hits so far promise a full page


@dataclass(frozen=True)
class KeysetScan:
    """One section in one direction from one place on."""

    number: int
    section: OrderSection
    descending: bool
    after: Place | None

    def led(self, lead: Condition, conditions: Sequence[Condition], limit: int) -> list[Place]:
        """At most `limit` hits among the few runs of the leading condition."""
        scan = self._narrowed(lead)
        rows = scan._rows()
        if scan is self:
            rows = rows.filter(**{f"{self.section.run}__in": lead.ids()[: FEW + 1]})
        others = [condition for condition in conditions if condition is not lead]
        lookups = scan._lookups((*others, *self.section.without))
        matching = {f"{name}__isnull": number >= len(others) for number, name in enumerate(lookups)}
        return [self._place(row) for row in rows.alias(**lookups).filter(**matching)[:limit]]

    def probe(self, conditions: Sequence[Condition], limit: int) -> tuple[list[Place], KeysetScan | None]:
        """At most `limit` hits, and the scan to continue with if more probing is not worthwhile."""
        if not conditions and not self.section.without:
            return [self._place(row) for row in self._rows()[:limit]], None
        hits: list[Place] = []
        scan, seen, size = self, 0, NEAR
        while size:
            rows = scan._looked_up(conditions, size)
            hits += [place for place, hit in rows if hit]
            if len(hits) >= limit or len(rows) < size:
                return hits[:limit], None
            scan, seen = replace(scan, after=rows[-1][0]), seen + size
            size = _worth_probing(seen, len(hits), limit)
        return hits, scan

    def scan(self, conditions: Sequence[Condition], limit: int) -> list[Place]:
        """At most `limit` hits from here on, by reading the rest of the section."""
        in_order = (condition for condition in conditions if condition.in_order)
        scan = self._narrowed(next(in_order, (*conditions, _EVERY)[0]))
        rows = scan._rows()
        for condition in conditions:
            if condition.rows is not scan.section.rows:
                rows = rows.filter(Among(scan.section.run, condition))
        for condition in scan.section.without:
            rows = rows.filter(NotAmong(scan.section.run, condition))
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
        """The next rows, and whether they match all conditions."""
        lookups = self._lookups((*conditions, *self.section.without))
        rows = self._rows().annotate(**lookups).values_list(*self.section.columns, *lookups)[:size]
        first = len(self.section.columns)
        last = first + len(conditions)
        return [(self._place(row), all(row[first:last]) and not any(row[last:])) for row in rows]

    def _lookups(self, conditions: Sequence[Condition]) -> dict[str, Subquery]:
        return {f"lookup_{n}": condition.lookup(self.section.run) for n, condition in enumerate(conditions)}

    def _narrowed(self, narrow: Condition) -> KeysetScan:
        """Rows of `Run` are wide: if only their ids are needed, read narrower rows instead."""
        if self.section.value:
            return self
        return replace(self, section=replace(self.section, rows=narrow.rows, run=narrow.run))


def matching(conditions: Sequence[Condition]) -> QuerySet[Any, Any]:
    """The runs that match all conditions, in no order."""
    first, *others = conditions
    rows = first.ids()
    for other in others:
        rows = rows.filter(Among(first.run, other))
    return rows


# Every run is in some state, and the index on states is narrow.
_EVERY = Condition(Run.objects.filter(state__in=list(State)), "pk")


def _worth_probing(seen: int, hits: int, limit: int) -> int:
    """How many rows to probe next: those that should fill the page, or none if a scan is safer."""
    wanted = seen * (limit - hits) * 5 // (4 * hits) if hits else FAR
    return wanted if seen + wanted <= FAR else 0
