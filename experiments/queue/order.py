"""The queue in the database: each lane's candidate, recent usage, which run is next, and why each queued run waits.

A claim costs a few index probes per lane, however many runs wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import OuterRef, QuerySet, Subquery

from experiments.clock import db_now
from experiments.models import Attempt, Lane, Project, Run, Worker
from experiments.models.runs import RunQuerySet
from experiments.states import HELD, State

from .fair_share import HELD_S, Candidate, Load, best, decayed

SHOWN = 200  # positions that are computed; runs behind them have none
NO_LANE = 0


@dataclass(frozen=True)
class Wait:
    """Why a queued run waits. `place` counts from 1; None beyond SHOWN, during back-off and at a project's limit."""

    place: int | None
    reason: str


def candidates(pools: Sequence[str]) -> list[Candidate]:
    """One for each lane of the pools that has a claimable run."""
    ready = Run.objects.claimable().filter(lane=OuterRef("pk"))
    first, oldest = ready.by_priority(), ready.order_by("id")
    lanes = Lane.objects.filter(pool__in=pools).annotate(
        head=Subquery(first.values("pk")[:1]),
        top=Subquery(first.values("priority")[:1]),
        elder=Subquery(oldest.values("pk")[:1]),
        since=Subquery(oldest.values("created")[:1]),
    )
    late = db_now() - timedelta(seconds=settings.ATTN_QUEUE_PATIENCE_S)
    in_lanes = [
        Candidate(lane.pk, lane.project_id, lane.owner, lane.top, lane.head, lane.elder if lane.since < late else None)
        for lane in lanes.filter(head__isnull=False)
    ]
    # Rows that were not written by `lifecycle` have no lane; they share one of their own.
    stray = _in_lane(pools, NO_LANE).first()
    return [*in_lanes, Candidate(NO_LANE, stray.project_id, 0, stray.priority, stray.pk)] if stray else in_lanes


def _in_lane(pools: Sequence[str], lane: int) -> RunQuerySet:
    return Run.objects.claimable().filter(lane=lane or None, pool__in=pools).by_priority()


def next_run(pools: Sequence[str]) -> Run | None:
    """The run to claim next, locked. If another worker is claiming it, the next of its lane. A project's limit is
    checked again under a lock, since two workers may have seen the same last slot."""
    waiting, usage = candidates(pools), load()
    while chosen := best(waiting, usage):
        candidate, run_id = chosen
        if candidate.project in usage.limits and connection.features.has_select_for_update:
            Project.objects.select_for_update().get(pk=candidate.project)
            usage = load()
            if usage.full(candidate.project):
                continue
        run = _unlocked(Run.objects.claimable().filter(pk=run_id)).first()
        run = run or _unlocked(_in_lane(pools, candidate.lane)).first()
        if run is not None:
            return run
        waiting = [other for other in waiting if other != candidate]
    return None


def _unlocked(runs: QuerySet[Run]) -> QuerySet[Run]:
    """On PostgreSQL skip rows that another worker is claiming; SQLite has one writer anyway."""
    return runs.select_for_update(skip_locked=True)


def load() -> Load:
    """Recent usage and running runs of projects and users. Reads lanes and held runs, never queued ones."""
    now = db_now()
    usage = Load(limits=limits())
    for lane in Lane.objects.exclude(used_at=None):
        assert lane.used_at is not None
        age = (now - lane.used_at).total_seconds()
        usage.use(lane.project_id, lane.owner, decayed(lane.used, age, settings.ATTN_SHARE_HALF_LIFE_S))
    held = Attempt.objects.filter(ended=None, run__state__in=HELD)
    for project, owner, claimed in held.values_list("run__project", "run__lane__owner", "claimed"):
        usage.take(project, owner or 0, HELD_S + (now - claimed).total_seconds())
    return usage


def limits() -> dict[int, int]:
    """How many runs each project may run at once, where there is a limit."""
    rows = Project.objects.exclude(max_running=None).values_list("pk", "max_running")
    own = {pk: most for pk, most in rows if most is not None}
    common = settings.ATTN_PROJECT_RUNNING
    return (dict.fromkeys(Project.objects.values_list("pk", flat=True), common) if common else {}) | own


def queue_order(pool: str, shown: int = SHOWN) -> list[int]:
    """Run ids in the order in which they would be claimed if no other run were submitted."""
    waiting = {each.lane: each for each in candidates([pool])}
    queues: dict[int, Any] = {lane: _following(pool, lane) for lane in waiting}
    usage = load()
    order: list[int] = []
    while len(order) < shown and (chosen := best(waiting.values(), usage)):
        lane, run = chosen
        order.append(run)
        usage.use(lane.project, lane.owner, HELD_S)
        following = next((row for row in queues[lane.lane] if row[0] not in order), None)
        if following is None:
            del waiting[lane.lane]
        else:
            waiting[lane.lane] = replace(lane, run=following[0], priority=following[1], overdue=None)
    return order


def _following(pool: str, lane: int) -> Any:
    return _in_lane([pool], lane).values_list("pk", "priority")[: SHOWN + 1].iterator()


def waits(runs: Iterable[Run]) -> dict[int, Wait]:
    """Position and reason of each queued run; runs in other states are left out."""
    queued = [run for run in runs if run.state == State.QUEUED]
    if not queued:
        return {}
    now, usage = db_now(), load()
    pools = {pool: _Pool(pool) for pool in {run.pool for run in queued}}
    return {run.pk: _wait(run, pools[run.pool], usage, now) for run in queued}


class _Pool:
    def __init__(self, name: str) -> None:
        self.name = name
        workers = [worker for worker in Worker.objects.alive() if name in worker.pools]
        taking = [worker for worker in workers if not worker.draining]
        self.slots = sum(worker.slots for worker in taking)
        self.draining = bool(workers) and not taking
        self.busy = Run.objects.held().filter(worker__in=taking).count()
        self.places = {run: place for place, run in enumerate(queue_order(name), start=1)}


def _wait(run: Run, pool: _Pool, usage: Load, now: datetime) -> Wait:
    if run.next_at is not None and run.next_at > now:
        crashes = f" after {run.crash_count} crash{'es' * (run.crash_count > 1)}" if run.crash_count else ""
        return Wait(None, f"back-off until {run.next_at:%H:%M:%S} UTC{crashes}")
    if usage.full(run.project_id):
        return Wait(None, f"project at its limit of {usage.limits[run.project_id]} running")
    place = pool.places.get(run.pk)
    where = f"{ordinal(place)} for pool {pool.name}" if place else f"behind the first {SHOWN} for pool {pool.name}"
    if pool.draining:
        return Wait(place, f"{where}; every worker that serves it is draining")
    if not pool.slots:
        return Wait(place, f"no worker serves pool {pool.name}; {where}")
    if pool.busy >= pool.slots:
        return Wait(place, f"{where}; {pool.busy} of {pool.slots} slots busy")
    free = pool.slots - pool.busy
    return Wait(place, f"{where}; {free} of {pool.slots} slots free{_ahead(place, free)}")


def _ahead(place: int | None, free: int) -> str:
    """Whether the run gets one of the free slots."""
    if place is None:
        return ""
    before = place - 1
    return ", about to be claimed" if place <= free else f", {before} run{'s' * (before > 1)} before it"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
