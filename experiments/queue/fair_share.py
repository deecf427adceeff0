"""Which run is next, as a pure function: by priority, then the project with the least recent usage, then the user, then
age. A run that has waited very long counts as of the highest queued priority, so that none starves. No Django.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HELD_S = 60.0  # usage counted as soon as a run is claimed, so that ten claims at one moment are shared too


@dataclass(frozen=True)
class Candidate:
    """A lane's next run by priority, and its oldest if that is overdue."""

    lane: int
    project: int
    owner: int
    priority: int
    run: int
    overdue: int | None = None


@dataclass
class Load:
    """Recent slot seconds by project and by user, and how many runs each project is running."""

    projects: Counter[int] = field(default_factory=Counter)
    owners: Counter[int] = field(default_factory=Counter)
    running: Counter[int] = field(default_factory=Counter)
    limits: Mapping[int, int] = field(default_factory=dict)

    def use(self, project: int, owner: int, seconds: float) -> None:
        self.projects[project] += seconds  # type: ignore[assignment]  # a Counter adds up floats as well
        self.owners[owner] += seconds  # type: ignore[assignment]

    def take(self, project: int, owner: int, seconds: float = HELD_S) -> None:
        """Count one more running run."""
        self.running[project] += 1
        self.use(project, owner, seconds)

    def full(self, project: int) -> bool:
        """Whether the project runs as many runs as it may."""
        return project in self.limits and self.running[project] >= self.limits[project]


def best(candidates: Iterable[Candidate], load: Load) -> tuple[Candidate, int] | None:
    """The next candidate and its run. None if every project is at its limit or nothing is queued."""
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
    """What earlier usage counts for now."""
    return seconds * float(0.5 ** (max(age_s, 0.0) / half_life_s))
