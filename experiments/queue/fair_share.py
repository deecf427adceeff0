"""Whose run is next, as a pure function: priority, then the project that has used least lately, then the user, then
age. What has waited for very long counts as of the highest priority that waits, so that nothing starves. No Django.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HELD_S = 60.0  # what a run that is taken counts at once, so that ten claims in a moment are shared too


@dataclass(frozen=True)
class Candidate:
    """What a lane would put forward: its best run, and its oldest where that has waited for too long."""

    lane: int
    project: int
    owner: int
    priority: int
    run: int
    overdue: int | None = None


@dataclass
class Load:
    """Slot seconds used lately, by project and by user, and how many runs each project has in hands."""

    projects: Counter[int] = field(default_factory=Counter)
    owners: Counter[int] = field(default_factory=Counter)
    running: Counter[int] = field(default_factory=Counter)
    limits: Mapping[int, int] = field(default_factory=dict)

    def use(self, project: int, owner: int, seconds: float) -> None:
        self.projects[project] += seconds  # type: ignore[assignment]  # a Counter adds up floats as well
        self.owners[owner] += seconds  # type: ignore[assignment]

    def take(self, project: int, owner: int, seconds: float = HELD_S) -> None:
        """A run goes into somebody's hands."""
        self.running[project] += 1
        self.use(project, owner, seconds)

    def full(self, project: int) -> bool:
        """Whether the project holds as many runs as it may."""
        return project in self.limits and self.running[project] >= self.limits[project]


def best(candidates: Iterable[Candidate], load: Load) -> tuple[Candidate, int] | None:
    """Who is next, and its run. None where every project is at its limit or nobody waits."""
    free = [each for each in candidates if not load.full(each.project)]
    if not free:
        return None
    top = max(each.priority for each in free)

    def rank(each: Candidate) -> tuple[float, ...]:
        urgent = top if each.overdue is not None else each.priority
        return (-urgent, load.projects[each.project], load.owners[each.owner], _run(each, top))

    chosen = min(free, key=rank)
    return chosen, _run(chosen, top)


def _run(candidate: Candidate, top: int) -> int:
    late = candidate.overdue is not None and candidate.priority < top
    return candidate.overdue if late and candidate.overdue is not None else candidate.run


def decayed(seconds: float, age_s: float, half_life_s: float) -> float:
    """What use of some time ago counts today."""
    return seconds * float(0.5 ** (max(age_s, 0.0) / half_life_s))
