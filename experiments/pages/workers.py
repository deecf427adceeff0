"""Workers with their runs, and the queue of each pool."""

from __future__ import annotations

from typing import Any, Literal

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, F, Min, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST, require_safe

from experiments import lifecycle
from experiments.models import Run, Worker
from experiments.pages.http.address import Address, takes
from experiments.pages.http.polling import polled
from experiments.queue.order import Wait, queue_order, waits
from experiments.states import State

QUEUE_SHOWN = 30
RECENT_GONE = 8


class WorkersAddress(Address):
    part: Literal["live"] | None = None


@takes(WorkersAddress)
@require_safe
def workers_page(request: HttpRequest) -> HttpResponse:
    part = request.GET.get("part") or "page"
    return polled(request, f"pages/workers/{part}.html", workers_and_queue(request), 3)


@require_POST
def drain(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.has_perm("experiments.change_worker"):
        raise PermissionDenied("Draining a worker needs the permission to change workers. Ask an administrator.")
    worker = get_object_or_404(Worker, pk=pk)
    draining = request.POST.get("draining")
    if draining not in {"on", "off"}:
        messages.error(request, "Nothing was changed: draining must be on or off.")
        return redirect("workers")
    lifecycle.drain_worker(worker.name, draining == "on", request.user)  # type: ignore[arg-type]
    return redirect("workers")


def workers_and_queue(request: HttpRequest) -> dict[str, Any]:
    """Workers with the runs they hold, and the queue. Runs of other people's projects are counted, not named."""
    visible = Run.objects.visible_to(request.user)
    alive = list(Worker.objects.alive())
    held: dict[int | None, list[Run]] = {}
    for run in visible.held().select_related("experiment").defer("spec", "experiment__spec"):
        held.setdefault(run.worker_id, []).append(run)
    counts = dict(Run.objects.held().order_by().values_list("worker").annotate(Count("id")))
    queued = visible.filter(state=State.QUEUED).select_related("experiment").defer("spec", "experiment__spec")
    return {
        "workers": [(worker, held.get(worker.pk, []), counts.get(worker.pk, 0)) for worker in alive],
        "gone": Worker.objects.exclude(pk__in=[worker.pk for worker in alive]).order_by("-last_seen")[:RECENT_GONE],
        "pools": _pools(alive),
        "queue": _queue(queued),
        "queue_length": queued.count(),
    }


def _queue(queued: QuerySet[Run]) -> list[tuple[Run, Wait]]:
    """The first runs of every pool with their places, then runs at a limit or in a back-off."""
    pools = queued.order_by().values_list("pool", flat=True).distinct()
    first = [run for pool in pools for run in queue_order(pool, QUEUE_SHOWN)]
    others = list(queued.order_by("-priority", "id").values_list("pk", flat=True)[:QUEUE_SHOWN])
    rows = list(queued.filter(pk__in={*first, *others}))
    wait_of = waits(rows)
    rows.sort(key=lambda run: (wait_of[run.pk].place or 10**9, -run.priority, run.pk))
    return [(run, wait_of[run.pk]) for run in rows[:QUEUE_SHOWN]]


def _pools(alive: list[Worker]) -> list[dict[str, Any]]:
    """Every pool that has a worker or a queued run, with its slots and the length of its queue."""
    queued = Run.objects.filter(state=State.QUEUED).order_by().values(name=F("pool"))
    rows = queued.annotate(waiting=Count("id"), since=Min("created"))
    pools: dict[str, dict[str, Any]] = {row["name"]: {**row, "slots": 0} for row in rows}
    for worker in alive:
        for name in set(worker.pools):
            pool = pools.setdefault(name, {"name": name, "waiting": 0, "since": None, "slots": 0})
            pool["slots"] += 0 if worker.draining else worker.slots
    return [pools[name] for name in sorted(pools)]
