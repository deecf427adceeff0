"""Workers and the line: who runs what since when, how many wait in each pool."""

from __future__ import annotations

from typing import Any, Literal

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from experiments import lifecycle
from experiments.models import Run, Worker
from experiments.pages.http.address import Address, takes
from experiments.queue.order import Wait, line, waits
from experiments.states import State

QUEUE_SHOWN = 30
RECENT_GONE = 8


class WorkersAddress(Address):
    part: Literal["live"] | None = None


@takes(WorkersAddress)
@require_safe
def workers_page(request: HttpRequest) -> HttpResponse:
    part = request.GET.get("part") == "live"
    response = render(request, "pages/workers/live.html" if part else "pages/workers/page.html", machines(request))
    response["X-Next-Poll"] = "3"
    return response


@require_POST
def drain(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.has_perm("experiments.change_worker"):
        raise PermissionDenied("Draining a worker needs the permission to change workers. Ask an administrator.")
    worker = get_object_or_404(Worker, pk=pk)
    asked = request.POST.get("draining")
    if asked not in {"on", "off"}:
        messages.error(request, "Nothing was done: say draining=on or draining=off.")
        return redirect("workers")
    lifecycle.drain_worker(worker.name, asked == "on", request.user)  # type: ignore[arg-type]
    return redirect("workers")


def machines(request: HttpRequest) -> dict[str, Any]:
    """Workers with what they hold, and the line of each pool. Runs of others' projects are counted, not named."""
    visible = Run.objects.visible_to(request.user)
    alive = list(Worker.objects.alive())
    held: dict[int | None, list[Run]] = {}
    for run in visible.held().select_related("experiment").defer("spec", "experiment__spec"):
        held.setdefault(run.worker_id, []).append(run)
    counts = dict(Run.objects.held().order_by().values_list("worker").annotate(Count("id")))
    queued = visible.filter(state=State.QUEUED).select_related("experiment").defer("spec", "experiment__spec")
    shown = _line(queued)
    return {
        "workers": [(worker, held.get(worker.pk, []), counts.get(worker.pk, 0)) for worker in alive],
        "gone": Worker.objects.exclude(pk__in=[worker.pk for worker in alive]).order_by("-last_seen")[:RECENT_GONE],
        "pools": _pools(alive),
        "line": shown,
        "line_length": queued.count(),
    }


def _line(queued: QuerySet[Run]) -> list[tuple[Run, Wait]]:
    """The first runs of every pool's line with their places, then what is at a limit or backs off."""
    pools = queued.order_by().values_list("pool", flat=True).distinct()
    near = [run for pool in pools for run in line(pool, QUEUE_SHOWN)]
    others = list(queued.order_by("-priority", "id").values_list("pk", flat=True)[:QUEUE_SHOWN])
    rows = list(queued.filter(pk__in={*near, *others}))
    why = waits(rows)
    rows.sort(key=lambda run: (why[run.pk].place or 10**9, -run.priority, run.pk))
    return [(run, why[run.pk]) for run in rows[:QUEUE_SHOWN]]


def _pools(alive: list[Worker]) -> list[dict[str, Any]]:
    """Every pool that someone serves or waits for, with slots and the length of its line."""
    rows = (
        Run.objects.filter(state=State.QUEUED).order_by().values("pool").annotate(n=Count("id"), since=Min("created"))
    )
    waiting: dict[str, dict[str, Any]] = {row["pool"]: dict(row) for row in rows}
    names = sorted({pool for worker in alive for pool in worker.pools} | set(waiting))
    return [
        {
            "name": name,
            "slots": sum(w.slots for w in alive if name in w.pools and not w.draining),
            "waiting": waiting.get(name, {}).get("n", 0),
            "since": waiting.get(name, {}).get("since"),
        }
        for name in names
    ]
