"""The workers, and the queue of each pool."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, Window
from django.db.models.functions import RowNumber
from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.base import View, fields_of
from experiments.api.http.paging import Key, Page, paginate
from experiments.api.http.query import Paged, Query
from experiments.models import Run, Worker
from experiments.queue.order import queue_order, waits
from experiments.states import HELD, State

SHOWN_IN_QUEUE = 20
_HELD_COLUMNS = ("worker", "experiment__name", "state", "committed_step", "steps")
_QUEUE_COLUMNS = ("pool", "project", "state", "experiment__name", "priority", "created", "next_at", "crash_count")


class HeldRun(BaseModel):
    """A run that a worker holds and the caller may see."""

    id: int
    name: str
    state: State
    step: int
    steps: int


class WorkerRow(BaseModel):
    """A worker process; `held` counts all its runs, `runs` lists those that the caller may see."""

    id: int
    name: str
    host: str
    pools: list[str]
    slots: int
    device: str
    info: dict[str, Any]
    started: datetime
    last_seen: datetime
    alive: bool
    draining: bool
    held: int
    runs: list[HeldRun]


class WorkerPage(Page):
    results: list[WorkerRow]


class QueuedRun(BaseModel):
    """A queued run that the caller may see, with its place in the pool's queue and the reason why it waits. `place` is
    null in a back-off, at a project's limit and far behind; `next_at` is the end of a back-off."""

    id: int
    name: str
    priority: int
    created: datetime
    next_at: datetime | None
    place: int | None
    reason: str


class PoolRow(BaseModel):
    """One pool: its queued runs, its held runs, and the workers and slots that are alive."""

    pool: str
    queued: int
    held: int
    workers: int
    slots: int
    next: list[QueuedRun]


class QueueAnswer(BaseModel):
    pools: list[PoolRow]


class WorkerList(View[Paged]):
    """The workers, by name."""

    query = Paged
    answers = {"GET": (200, WorkerPage)}

    def get(self, request: Request) -> Response:
        page, links = paginate(Worker.objects.all(), [Key("name")], self.params, request)
        alive = set(Worker.objects.alive().values_list("pk", flat=True))
        held, shown = _held_counts(page), _held_runs(page, request)
        rows = [_worker(w, w.pk in alive, held.get(w.pk, 0), shown.get(w.pk, [])) for w in page]
        return Response({"results": rows, **links})


class QueueList(View[Query]):
    """The queue of every pool that has runs or living workers."""

    answers = {"GET": (200, QueueAnswer)}

    def get(self, request: Request) -> Response:
        counts = pool_counts()
        workers = list(Worker.objects.alive().filter(draining=False))
        names = sorted({pool for pool, _ in counts} | {pool for worker in workers for pool in worker.pools})
        waiting = _waiting(request)
        return Response({"pools": [_pool(name, counts, workers, waiting.get(name, [])) for name in names]})


def pool_counts() -> dict[tuple[str, str], int]:
    """Queued and held runs, by (pool, state); metrics read it too."""
    rows = Run.objects.filter(state__in=[State.QUEUED, *HELD]).order_by()
    return {(pool, state): n for pool, state, n in rows.values_list("pool", "state").annotate(n=Count("pk"))}


def _held_counts(workers: list[Worker]) -> dict[int, int]:
    rows = Run.objects.held().filter(worker__in=workers).order_by()
    return dict(rows.values_list("worker").annotate(n=Count("pk")))


def _held_runs(workers: list[Worker], request: Request) -> dict[int, list[dict[str, Any]]]:
    by_worker: dict[int, list[dict[str, Any]]] = {}
    runs = Run.objects.visible_to(request.user).held().filter(worker__in=workers).order_by("pk")
    for run in runs.select_related("experiment").only(*_HELD_COLUMNS):
        row = {"id": run.pk, "name": run.experiment.name, "state": run.state, "step": run.committed_step}
        by_worker.setdefault(run.worker_id or 0, []).append(row | {"steps": run.steps})
    return by_worker


def _worker(worker: Worker, alive: bool, held: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("id", "name", "host", "pools", "slots", "device", "info", "started", "last_seen", "draining")
    return fields_of(worker, *names) | {"alive": alive, "held": held, "runs": runs}


def _waiting(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The first runs of each queue that the caller may see, in the order in which they will be claimed."""
    by_pool: dict[str, list[dict[str, Any]]] = {}
    runs = Run.objects.visible_to(request.user).filter(state=State.QUEUED)
    by_priority = Window(RowNumber(), partition_by=F("pool"), order_by=["-priority", "pk"])
    pools = runs.order_by().values_list("pool", flat=True).distinct()
    near = [run for pool in pools for run in queue_order(pool, SHOWN_IN_QUEUE)]
    heads = runs.annotate(row=by_priority).filter(Q(row__lte=SHOWN_IN_QUEUE) | Q(pk__in=near))
    rows = list(heads.select_related("experiment").only(*_QUEUE_COLUMNS))
    why = waits(rows)
    for run in sorted(rows, key=lambda run: (why[run.pk].place or 10**9, -run.priority, run.pk)):
        row = {"id": run.pk, "name": run.experiment.name, "priority": run.priority, **asdict(why[run.pk])}
        by_pool.setdefault(run.pool, []).append(row | {"created": run.created, "next_at": run.next_at})
    return {pool: waiting[:SHOWN_IN_QUEUE] for pool, waiting in by_pool.items()}


def _pool(
    name: str, counts: dict[tuple[str, str], int], workers: list[Worker], queued: list[dict[str, Any]]
) -> dict[str, Any]:
    mine = [worker for worker in workers if name in worker.pools]
    return {
        "pool": name,
        "queued": counts.get((name, State.QUEUED), 0),
        "held": sum(counts.get((name, state), 0) for state in HELD),
        "workers": len(mine),
        "slots": sum(worker.slots for worker in mine),
        "next": queued,
    }
