"""One page of the runs that some conditions let through, in any order, as fast at 100,000 runs as at a hundred.

Conditions and orders stand in narrow side tables, each on its own index (`Param`, `Headline`) or on a narrow index of
`Run`. Which way is fast depends on how many runs a condition lets through and on where in the order they lie, and a
wrong guess costs a hundred times the right one. So little is guessed:

1. Lead: each condition's runs are counted, up to FEW. The fewest, where they are few, lead: they are looked up in the
   order's table and sorted.
2. Probe: else the next rows of the order are looked at, each condition by one look-up a row, for as long as hits are
   dense enough to fill the page soon. Conditions that let many runs through nearly always do.
3. Common: else, of several conditions, the runs that all of them let through are asked for; where few, these lead.
4. Scan: else the rest of the order's index is read against the conditions' sets of runs, each built once.

docs/decisions/0010-run-table.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.models import Project, Run
from experiments.models.definitions import AnyUser

from .keyset_scan import FEW, Walk, matching
from .terms import Condition, Listed, Order, Place, Section

__all__ = ["Condition", "Order", "Place", "Section", "by_id", "by_value", "count", "find", "visible"]


def find(
    conditions: Sequence[Condition], order: Order, limit: int, after: Place | None = None, *, backward: bool = False
) -> list[Place]:
    """At most `limit` runs that stand after a place (before it, nearest first, where `backward`)."""
    lead = _lead(conditions)
    several = lead is None and len(conditions) > 1
    found: list[Place] = []
    for number in order.numbers(backward, after):
        start = after if after and after.section == number else None
        walk = Walk(number, order.sections[number], order.descending != backward, start)
        wanted = limit - len(found)
        hits, rest = ([], walk) if lead else walk.probe(conditions, wanted)
        if rest is not None and several:
            lead, several = _common(conditions), False
        if lead:
            hits = walk.led(lead, conditions, wanted)
        elif rest is not None:
            hits += rest.scan(conditions, wanted - len(hits))
        found += hits
        if len(found) == limit:
            break
    return found


def count(conditions: Sequence[Condition], at_most: int) -> int:
    """How many runs there are; `at_most` where there are as many or more."""
    rows = matching(conditions) if conditions else Run.objects.values_list("pk")
    return rows[:at_most].count()


def _lead(conditions: Sequence[Condition]) -> Condition | None:
    """The condition that lets the fewest runs through, where they are few."""
    counts = {}
    for at, condition in enumerate(conditions):
        counts[at] = condition.ids()[: FEW + 1].count()
        if counts[at] == 0:
            break
    at = min(counts, key=counts.__getitem__, default=-1)
    return conditions[at] if at >= 0 and counts[at] <= FEW else None


def _common(conditions: Sequence[Condition]) -> Condition | None:
    """The runs that all conditions let through, as one condition, where they are few."""
    runs = list(matching(conditions)[: FEW + 1])
    return Condition(Run.objects.filter(Listed("pk", runs)), "pk") if len(runs) <= FEW else None


def visible(user: AnyUser) -> list[Condition]:
    """What lets through the runs that the user may see; nothing at all for one who may see every project."""
    projects = set(Project.objects.visible_to(user).order_by().values_list("pk", flat=True))
    if len(projects) == Project.objects.count():
        return []
    return [Condition(Run.objects.filter(project_id__in=projects), "pk", in_order=len(projects) == 1)]


def by_id(*, descending: bool) -> Order:
    return Order("id", descending, (Section(Run.objects.all(), "pk"),))


def by_value(name: str, *valued: Section, descending: bool) -> Order:
    """Sections of rows that have a value, then the runs that have none."""
    have = tuple(Condition(section.rows, section.run) for section in valued)
    return Order(name, descending, (*valued, Section(Run.objects.all(), "pk", without=have)))
