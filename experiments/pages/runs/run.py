"""One run: header, charts, predictions, config, log and events."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from experiments import lifecycle
from experiments.models import Artifact, Attempt, LogChunk, Run
from experiments.models.notices import notices_of
from experiments.models.trained_with import shown, trained_with
from experiments.pages.http.access import may_edit, require_editor, run_or_404
from experiments.pages.http.address import takes
from experiments.pages.http.polling import polled
from experiments.queue.order import waits
from experiments.spec import SpecError, flatten, parse_spec, resolved
from experiments.store import points_per_bucket

from .address import LogAddress, PanelsAddress, PicturesAddress, RunAddress
from .inspection import attention
from .inspection_series import flow_tab, probes_tab
from .panels import names_of, panels_of

LOG_TAIL = 400
FORKS_SHOWN = 20
_SECTIONS = ("task", "seed", "data", "model", "loss", "train", "optimizer", "record", "resources")
_ORDER = {name: place for place, name in enumerate(_SECTIONS)}  # the order of the config table
QUANTITIES = (("grad_norm", "gradient norm"), ("update_ratio", "update ratio ‖ΔW‖/‖W‖"), ("weight_norm", "weight norm"))
SHADES = (("W_q", "m-q"), ("W_k", "m-k"), ("W_v", "m-v"), ("W_o", "m-o"))


@takes(RunAddress)
@require_safe
def run_page(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    tab = request.GET.get("tab") or "training"
    tabs = {name: title for name, (title, _) in TABS.items()}
    context = _head(request, run) | {"tab": tab, "tabs": tabs} | TABS[tab][1](request, run)
    return render(request, f"pages/run/tabs/{tab}.html", context)


@require_safe
def run_live(request: HttpRequest, pk: int) -> HttpResponse:
    """The header, for polling."""
    run = run_or_404(request, pk)
    return polled(request, "pages/run/head.html", _head(request, run), 0 if run.ended else 1.5)


@takes(PanelsAddress)
@require_safe
def run_panels(request: HttpRequest, pk: int) -> HttpResponse:
    """The charts that have data; a run that has not started has none."""
    run = run_or_404(request, pk)
    more = request.GET.get("part") == "more"
    context = {"run": run, "panels": _panels(run)["more" if more else "panels"], "quiet": more}
    return polled(request, "pages/run/panels.html", context, 0 if run.ended else 4)


@takes(PicturesAddress)
@require_safe
def run_predictions(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    context = {"run": run} | _predictions(request, run)
    return polled(request, "pages/run/predictions.html", context, 0 if run.ended else 4)


@takes(LogAddress)
@require_safe
def run_log(request: HttpRequest, pk: int) -> HttpResponse:
    """Lines after a cursor, and the element that polls for the next ones."""
    run = run_or_404(request, pk)
    after = request.GET.get("after") or "0"
    chunks = run.logs.filter(pk__gt=int(after))[:LOG_TAIL]
    return render(request, "pages/run/log_lines.html", {"run": run} | _lines(list(chunks), after))


@require_safe
def run_events(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    return polled(request, "pages/run/event_list.html", {"run": run} | _events(request, run), 0 if run.ended else 3)


@require_POST
def run_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    return _change(request, pk, lifecycle.request_cancel, "Cancellation requested.", ended="Run cancelled.")


@require_POST
def run_retry(request: HttpRequest, pk: int) -> HttpResponse:
    if request.POST.get("from", "start") != "start":
        messages.error(request, "Nothing was changed: leave out from to retry from the last checkpoint, or send start.")
        return redirect("run", pk)
    retry = partial(lifecycle.retry, from_start=request.POST.get("from") == "start")
    return _change(request, pk, retry, "Queued again.")


@require_POST
def run_delete(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    require_editor(request, run.project)
    try:
        lifecycle.delete_run(run.pk, request.user)  # type: ignore[arg-type]
    except lifecycle.NotAllowed as error:
        messages.error(request, str(error))
        return redirect("run", pk)
    messages.success(request, f"Run {pk} is deleted. Its series and files are removed in the background.")
    return redirect("run-list")


def _change(request: HttpRequest, pk: int, verb: Any, done: str, ended: str = "") -> HttpResponse:
    """Say `done`, or `ended` where the run has ended by the change."""
    run = run_or_404(request, pk)
    require_editor(request, run.project)
    try:
        changed = verb(run.pk, request.user)
        messages.success(request, ended if ended and changed.ended else done)
    except lifecycle.NotAllowed as error:
        messages.error(request, str(error))
    return redirect("run", run.pk)


def _head(request: HttpRequest, run: Run) -> dict[str, Any]:
    attempt = run.attempts.select_related("worker").first()
    return {
        "run": run,
        "attempt": attempt,
        "attempts": run.attempts.count(),
        "may_edit": may_edit(request, run.project),
        "elapsed": (run.finished - run.started) if run.started and run.finished else None,
        "left": _left(run, attempt),
        "forks": run.forks.order_by("id").only("id", "state", "parent_step", "parent_id")[:FORKS_SHOWN],
        "checkpointed": run.checkpoint_step > 0,
        "waiting": waits([run]).get(run.pk),
        "thinned": _thinned(run) if run.ended else None,
        "notices": notices_of([run.pk]).get(run.pk, []),
    }


def _thinned(run: Run) -> dict[str, int] | None:
    """The number of series that a retention rule has thinned, and the points in their largest buckets."""
    levels = [level for thinned in run.groups.values_list("thinned", flat=True) for level in thinned if level]
    return {"series": len(levels), "points": points_per_bucket(max(levels))} if levels else None


def _left(run: Run, attempt: Attempt | None) -> float | None:
    """Seconds to the end, at the pace of this attempt."""
    if run.state != "running" or attempt is None or attempt.started is None:
        return None
    done = run.committed_step - attempt.start_step
    if done <= 0:
        return None
    return (timezone.now() - attempt.started).total_seconds() / done * (run.steps - run.committed_step)


def _panels(run: Run) -> dict[str, Any]:
    panels = panels_of(names_of([run.pk]), str(run.spec.get("task")))
    return {
        "panels": [panel for panel in panels if not panel.later],
        "more": [panel for panel in panels if panel.later],
    }


def _training(request: HttpRequest, run: Run) -> dict[str, Any]:
    chosen = request.GET.get("m", "W_q,W_k,W_v").split(",")
    return (
        _panels(run)
        | _predictions(request, run)
        | {"view": request.GET, "quantities": QUANTITIES, "matrix_choices": SHADES, "chosen_matrices": chosen}
    )


def _predictions(request: HttpRequest, run: Run) -> dict[str, Any]:
    """Pictures of one evaluation: that of the address, else the newest."""
    pictures = Artifact.objects.filter(run=run, kind="prediction")
    steps = sorted({step for step in pictures.values_list("step", flat=True) if step is not None})
    if not steps:
        return {"pictures": [], "picture_steps": []}
    place = min(int(request.GET.get("at") or len(steps)), len(steps) - 1)
    chosen = list(pictures.filter(step=steps[place]).order_by("name"))
    return {"pictures": chosen, "picture_steps": steps, "picture_at": place, "picture_step": steps[place]}


def _config(request: HttpRequest, run: Run) -> dict[str, Any]:
    """Every leaf of the spec beside its default; fields that the matrix varies are marked."""
    defaults = dict(flatten(_defaults(run)))
    rows = [
        {
            "path": path,
            "value": value,
            "default": defaults.get(path),
            "differs": path not in defaults or defaults[path] != value,
            "varied": path in run.params,
        }
        for path, value in sorted(flatten(run.spec), key=lambda leaf: _ORDER.get(leaf[0].partition(".")[0], 99))
    ]
    circumstances = shown(trained_with([run]).get(run.pk))
    return {"rows": rows, "only": request.GET.get("only") == "differing", "trained_with": circumstances}


def _defaults(run: Run) -> dict[str, Any]:
    """The spec of the same task and dataset with every field at its default."""
    try:
        return resolved(parse_spec({"task": run.spec["task"], "data": {"dataset": run.spec["data"]["dataset"]}}))
    except (SpecError, KeyError, TypeError):
        return {}


def _log(request: HttpRequest, run: Run) -> dict[str, Any]:
    newest = list(LogChunk.objects.filter(run=run).order_by("-id")[:LOG_TAIL])
    return _lines(newest[::-1], "0")


def _lines(chunks: list[LogChunk], after: str) -> dict[str, Any]:
    return {"chunks": chunks, "after": chunks[-1].pk if chunks else after}


def _events(request: HttpRequest, run: Run) -> dict[str, Any]:
    return {"events": run.events.order_by("-id")[:500], "all_attempts": run.attempts.select_related("worker")}


def _artifacts(request: HttpRequest, run: Run) -> dict[str, Any]:
    return {"artifacts": run.artifacts.order_by("-id")[:500], "checkpoints": run.checkpoints.all()}


TABS = {
    "training": ("Training", _training),
    "attention": ("Inspect", attention),
    "flow": ("Gradient chain", flow_tab),
    "probes": ("Probes", probes_tab),
    "config": ("Config", _config),
    "log": ("Log", _log),
    "events": ("Events", _events),
    "artifacts": ("Artifacts", _artifacts),
}
