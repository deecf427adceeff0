"""One page of the runs that match some conditions, in any order, as fast at 100,000 runs as at a hundred.

Conditions and orders are in narrow side tables, each on its own index (`Param`, `Headline`) or on a narrow index of
`Run`. Which way is fast depends on how many runs match a condition and where they are in the order, and a wrong guess
costs a hundred times the right one. So little is guessed:

1. Lead: the runs of each condition are counted, up to FEW. If the fewest are few, that condition leads: its runs are
   looked up in the order's table and sorted.
2. Probe: otherwise the next rows of the order are read, with one lookup per row and condition, while hits are dense
   enough to fill the page soon. Conditions that many runs match nearly always are.
3. Common: otherwise, of several conditions, the runs that match all are listed; if they are few, these lead.
4. Scan: otherwise the rest of the order's index is read against the conditions' sets of runs, each built once.

docs/decisions/0010-run-table.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.models import Project, Run
from experiments.models.definitions import AnyUser

from .keyset_scan import FEW, KeysetScan, matching
from .terms import Condition, Listed, Order, OrderSection, Place

__all__ = ["Condition", "Order", "OrderSection", "Place", "by_id", "by_value", "count", "find", "visible"]


def find(
    conditions: Sequence[Condition], order: Order, limit: int, after: Place | None = None, *, backward: bool = False
) -> list[Place]:
    """At most `limit` runs after a place; if `backward`, before it, nearest first."""
    lead = _lead(conditions)
    several = lead is None and len(conditions) > 1
    places: list[Place] = []
    for number in order.numbers(backward, after):
        scan = _scan(order, number, after, backward)
        wanted = limit - len(places)
        hits, rest = ([], scan) if lead else scan.probe(conditions, wanted)
        if rest is not None and several:
            lead, several = _common(conditions), False
        if lead:
            hits = scan.led(lead, conditions, wanted)
        elif rest is not None:
            hits += rest.scan(conditions, wanted - len(hits))
        places += hits
        if len(places) == limit:
            break
    return places


def _scan(order: Order, number: int, after: Place | None, backward: bool) -> KeysetScan:
    start = after if after and after.section == number else None
    return KeysetScan(number, order.sections[number], order.descending != backward, start)


def count(conditions: Sequence[Condition], at_most: int) -> int:
    """How many runs match, counted up to `at_most`."""
    rows = matching(conditions) if conditions else Run.objects.values_list("pk")
    return rows[:at_most].count()


def _lead(conditions: Sequence[Condition]) -> Condition | None:
    """The condition that the fewest runs match, if they are few."""
    counts: list[int] = []
    for condition in conditions:
        counts.append(condition.ids()[: FEW + 1].count())
        if counts[-1] == 0:
            break
    fewest = min(counts, default=FEW + 1)
    return conditions[counts.index(fewest)] if fewest <= FEW else None


def _common(conditions: Sequence[Condition]) -> Condition | None:
    """The runs that match all conditions, as one condition, if they are few."""
    runs = list(matching(conditions)[: FEW + 1])
    return Condition(Run.objects.filter(Listed("pk", runs)), "pk") if len(runs) <= FEW else None


def visible(user: AnyUser) -> list[Condition]:
    """The condition that the user may see a run; none for a user who may see every project."""
    projects = set(Project.objects.visible_to(user).order_by().values_list("pk", flat=True))
    if len(projects) == Project.objects.count():
        return []
    return [Condition(Run.objects.filter(project_id__in=projects), "pk", in_order=len(projects) == 1)]


def by_id(*, descending: bool) -> Order:
    return Order("id", descending, (OrderSection(Run.objects.all(), "pk"),))


def by_value(name: str, *valued: OrderSection, descending: bool) -> Order:
    """Sections of rows with a value, then the runs without one."""
    have = tuple(Condition(section.rows, section.run) for section in valued)
    return Order(name, descending, (*valued, OrderSection(Run.objects.all(), "pk", without=have)))
