"""Experiments: the list, and one with its definition and its runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Literal

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe
from pydantic import Field

from experiments import lifecycle
from experiments.api.http.names import check_project
from experiments.api.http.problems import Invalid
from experiments.models import Attempt, Experiment, Headline, Project, Run
from experiments.pages.http.access import experiment_or_404, may_edit, require_editor
from experiments.pages.http.address import Address, problems_of, refuse, refuse_all, takes
from experiments.pages.http.polling import polled
from experiments.states import ENDED, State
from experiments.submissions.presets import presets

from . import report
from .http import yaml_text

PAGE_SIZE = 30
SHOWN_METRICS = ("loss/total", "eval/mask_iou", "eval/box_iou", "eval/presence", "eval/accuracy")


class ListAddress(Address):
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
        refuse_all(request, error)
    wanted = Q(pk__in=[]) if problems_of(request) else Q()
    if view.project:
        wanted &= Q(project__name=view.project)
    if view.q:
        wanted &= Q(name__icontains=view.q) | Q(preset__icontains=view.q[:64])
    rows = Experiment.objects.visible_to(request.user).filter(wanted).select_related("project", "created_by")
    pages = Paginator(rows.defer("spec"), PAGE_SIZE)
    if view.page and view.page > pages.num_pages:
        refuse(request, "page", f"the last page is {pages.num_pages}")
    page = pages.get_page(view.page)
    add_counts(page.object_list)
    projects = Project.objects.visible_to(request.user).distinct()
    context = {"page": page, "view": request.GET, "projects": projects}
    part = request.GET.get("part") or "list"
    return polled(request, f"pages/experiments/{part}.html", context, 4)


@takes(ExperimentAddress)
@require_safe
def experiment_page(request: HttpRequest, pk: int) -> HttpResponse:
    experiment = experiment_or_404(request, pk)
    last_attempt = Attempt.objects.filter(run=OuterRef("pk")).order_by("-fence")
    last_host = Subquery(last_attempt.values("host")[:1])
    runs = list(experiment.runs.annotate(last_host=last_host).defer("spec").order_by("index"))
    results = _results(runs)
    recorded = set(chain.from_iterable(results.values()))
    context = {
        "experiment": experiment,
        "runs": [(run, results.get(run.pk, {})) for run in runs],
        "columns": list(dict.fromkeys(chain.from_iterable(run.params for run in runs))),
        "metrics": [key for key in SHOWN_METRICS if key in recorded],
        "live": any(not run.ended for run in runs),
        "ids": ",".join(str(run.pk) for run in runs[:100]),
        "preset": presets().get(experiment.preset),
        "may_edit": may_edit(request, experiment.project),
    }
    add_counts([experiment])
    part = request.GET.get("part") or "page"
    if part == "page":
        context["yaml"] = yaml_text.dump(experiment.spec)
        context |= report.section(request, experiment)
    return polled(request, f"pages/experiments/{part}.html", context, 2 if context["live"] else 0)


@require_POST
def experiment_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Request the cancellation of every run that has not ended."""
    experiment = experiment_or_404(request, pk)
    require_editor(request, experiment.project)
    count = 0
    for run in experiment.runs.exclude(state__in=ENDED).only("pk"):
        try:
            lifecycle.request_cancel(run.pk, request.user)  # type: ignore[arg-type]
            count += 1
        except lifecycle.NotAllowed:
            continue  # it ended in between
    done = f"Cancellation requested for {count} run{'s' if count > 1 else ''}." if count else "All runs have ended."
    messages.success(request, done)
    return redirect("experiment", experiment.pk)


def add_counts(experiments: Iterable[Experiment]) -> None:
    """The number of runs in each state; one query for the page."""
    rows = Run.objects.filter(experiment__in=list(experiments)).order_by()
    counts: dict[int, dict[str, int]] = {}
    for pk, state, count in rows.values_list("experiment", "state").annotate(count=Count("id")):
        counts.setdefault(pk, {})[state] = count
    for experiment in experiments:
        by_state = counts.get(experiment.pk, {})
        experiment.total = sum(by_state.values())  # type: ignore[attr-defined]
        experiment.ended_count = sum(by_state.get(state, 0) for state in ENDED)  # type: ignore[attr-defined]
        experiment.by_state = [(state, by_state[state]) for state in State if state in by_state]  # type: ignore[attr-defined]


def _results(runs: list[Run]) -> dict[int, dict[str, float | None]]:
    """The last value of each shown metric, by run."""
    results: dict[int, dict[str, float | None]] = {}
    for headline in Headline.objects.filter(run__in=runs, key__in=SHOWN_METRICS):
        results.setdefault(headline.run_id, {})[headline.key] = headline.last
    return results
