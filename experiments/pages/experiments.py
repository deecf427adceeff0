"""Experiments: the list, and one with its definition and its runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe
from pydantic import Field

from experiments import lifecycle
from experiments.api.http.names import check_project
from experiments.api.http.problems import Invalid
from experiments.models import Experiment, Headline, Project, Run
from experiments.pages.http.access import experiment_or_404, may_edit, require_editor
from experiments.pages.http.address import Address, problems_of, refuse, takes, tell
from experiments.states import State
from experiments.submissions.presets import presets

from . import report
from .http import yaml_text as yamltext

PAGE_SIZE = 30
SHOWN_METRICS = ("loss/total", "eval/mask_iou", "eval/box_iou", "eval/presence", "eval/accuracy")


class ListAddress(Address):
    """What the list takes from its address."""

    project: str | None = Field(None, max_length=64)
    q: str | None = Field(None, max_length=200)
    page: int | None = Field(None, ge=1)
    part: Literal["rows"] | None = None


class ExperimentAddress(Address):
    metric: str | None = Field(None, max_length=200)
    part: Literal["live"] | None = None


@takes(ListAddress)
@require_safe
def experiment_list(request: HttpRequest) -> HttpResponse:
    view = ListAddress.read(request.GET)
    try:
        check_project(view.project, request.user)
    except Invalid as error:
        tell(request, error)
    wanted = Q(pk__in=[]) if problems_of(request) else Q()
    if view.project:
        wanted &= Q(project__name=view.project)
    if view.q:
        wanted &= Q(name__icontains=view.q) | Q(preset__icontains=view.q[:64])
    rows = Experiment.objects.visible_to(request.user).filter(wanted).select_related("project", "created_by")
    pages = Paginator(rows.defer("spec"), PAGE_SIZE)
    if view.page and view.page > pages.num_pages:
        refuse(request, "page", f"the list ends at page {pages.num_pages}")
    page = pages.get_page(view.page)
    add_counts(page.object_list)
    context = {
        "page": page,
        "view": request.GET,
        "projects": Project.objects.visible_to(request.user).distinct(),
    }
    part = request.GET.get("part") == "rows"
    response = render(request, "pages/experiments/rows.html" if part else "pages/experiments/list.html", context)
    response["X-Next-Poll"] = "4"
    return response


@takes(ExperimentAddress)
@require_safe
def experiment_page(request: HttpRequest, pk: int) -> HttpResponse:
    experiment = experiment_or_404(request, pk)
    runs = list(experiment.runs.select_related("worker").defer("spec").order_by("index"))
    context = {
        "experiment": experiment,
        "runs": _with_results(runs),
        "columns": list(dict.fromkeys(key for run in runs for key in run.params)),
        "metrics": _metrics(runs),
        "live": any(not run.ended for run in runs),
        "ids": ",".join(str(run.pk) for run in runs[:100]),
        "preset": presets().get(experiment.preset),
        "may_edit": may_edit(request, experiment.project),
    }
    add_counts([experiment])
    part = request.GET.get("part") == "live"
    if not part:
        context["yaml"] = yamltext.dump(experiment.spec)
        context |= report.section(request, experiment)
    response = render(request, "pages/experiments/live.html" if part else "pages/experiments/page.html", context)
    response["X-Next-Poll"] = "2" if context["live"] else "0"
    return response


@require_POST
def experiment_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask every run that has not ended to stop."""
    experiment = experiment_or_404(request, pk)
    require_editor(request, experiment.project)
    asked = 0
    for run in experiment.runs.exclude(state__in=[State.SUCCEEDED, State.FAILED, State.CANCELLED]).only("pk"):
        try:
            lifecycle.request_cancel(run.pk, request.user)  # type: ignore[arg-type]
            asked += 1
        except lifecycle.NotAllowed:
            continue  # it ended in between
    messages.success(request, f"Asked {asked} runs to stop." if asked else "Every run has already ended.")
    return redirect("experiment", experiment.pk)


def add_counts(experiments: Iterable[Experiment]) -> None:
    """How many runs stand in each state; one query for the page."""
    rows = Run.objects.filter(experiment__in=list(experiments)).order_by()
    counts: dict[int, dict[str, int]] = {}
    for experiment, state, count in rows.values_list("experiment", "state").annotate(count=Count("id")):
        counts.setdefault(experiment, {})[state] = count
    for item in experiments:
        mine = counts.get(item.pk, {})
        item.total = sum(mine.values())  # type: ignore[attr-defined]
        item.ended_count = sum(mine.get(state, 0) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED))  # type: ignore[attr-defined]
        item.by_state = [(state, mine[state]) for state in State if state in mine]  # type: ignore[attr-defined]


def _metrics(runs: list[Run]) -> list[str]:
    have = set(Headline.objects.filter(run__in=runs, key__in=SHOWN_METRICS).values_list("key", flat=True))
    return [key for key in SHOWN_METRICS if key in have]


def _with_results(runs: list[Run]) -> list[tuple[Run, dict[str, Any]]]:
    heads: dict[int, dict[str, Any]] = {}
    for head in Headline.objects.filter(run__in=runs, key__in=SHOWN_METRICS):
        heads.setdefault(head.run_id, {})[head.key] = head.last
    return [(run, heads.get(run.pk, {})) for run in runs]
