"""The report section of an experiment's page, and the form that adds seeds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Literal

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe
from pydantic import Field

from experiments import lifecycle
from experiments.models import Experiment
from experiments.pages.http.access import experiment_or_404, may_edit, require_editor
from experiments.pages.http.address import Address, refuse, takes, whole_number
from experiments.pages.http.polling import polled
from experiments.verdicts.judge import Verdict
from experiments.verdicts.report import Comparison, Report, UnknownMetric, VariantReport, report
from experiments.verdicts.sameness import alarms_of
from experiments.verdicts.verdict import own_verdict, rule_of

MAX_ADDED = 100  # seeds at once, from the page
_SLUG = {"not supported": "not-supported"}


class ReportAddress(Address):
    metric: str | None = Field(None, max_length=200)
    part: Literal["verdict"] | None = None


@takes(ReportAddress)
@require_safe
def experiment_report(request: HttpRequest, pk: int) -> HttpResponse:
    """The tables alone, or the banner (`?part=verdict`), for the page's live regions."""
    experiment = experiment_or_404(request, pk)
    context = section(request, experiment) | {"experiment": experiment}
    part = request.GET.get("part") or "report"
    live = experiment.runs.filter(finished=None).exists()
    return polled(request, f"pages/experiments/{part}.html", context, 5 if live else 0)


def section(request: HttpRequest, experiment: Experiment) -> dict[str, Any]:
    """Context of the section, for the series that `?metric=` names."""
    try:
        tables, pool = report(experiment, request.user, request.GET.get("metric") or None)
    except UnknownMetric as error:
        refuse(request, "metric", str(error))
        tables, pool = report(experiment, request.user)
    verdict, departs_in = own_verdict(experiment, pool)
    figures = verdict.rule.shown if verdict else []
    return {
        "report": tables,
        "choice": pool.choice,
        "alarms": alarms_of(experiment),
        "rows": _rows(tables),
        "verdict": verdict,
        "verdict_slug": _SLUG.get(verdict.result, verdict.result) if verdict else "",
        "departs_in": departs_in,
        "shown": [(figure.label, VariantReport({}, pool.term(figure.term))) for figure in figures],
        "more": suggested(experiment, verdict, tables),
        "may_edit": may_edit(request, experiment.project),
    }


def _rows(tables: Report) -> list[dict[str, Any]]:
    tests: dict[int, Comparison] = {test.variant: test for test in tables.tests}
    rows = []
    for index, variant in enumerate(tables.variants):
        test = tests.get(index)
        rows.append({"variant": variant, "test": test, "against": test and tables.variants[test.reference].label})
    return rows


def suggested(experiment: Experiment, verdict: Verdict | None, tables: Report) -> int:
    """The number of seeds to add for the next test of the open comparisons; 0 where none is open."""
    findings = verdict.findings if verdict else []
    needed = max((finding.more_seeds or 0 for finding in findings if not finding.problem), default=0)
    coming = max((len(variant.values.missing) for variant in tables.variants), default=0)
    return min(max(needed - coming, 0), MAX_ADDED)


@require_POST
def experiment_seeds(request: HttpRequest, pk: int) -> HttpResponse:
    """Add the number of seeds that the form sends: those of the rule first, then the next whole numbers."""
    experiment = experiment_or_404(request, pk)
    require_editor(request, experiment.project)
    more = whole_number(request.POST.get("more", "")) or 0
    if not 1 <= more <= MAX_ADDED:
        messages.error(request, f"Enter the number of seeds to add: a whole number from 1 to {MAX_ADDED}.")
        return redirect("experiment", pk)
    seeds = list(islice(_next_seeds(experiment), more))
    try:
        runs = lifecycle.append_seeds(pk, seeds, request.user, max_runs=settings.ATTN_MAX_RUNS)  # type: ignore[arg-type]
    except (lifecycle.TooManyRuns, lifecycle.NotAllowed) as error:
        messages.error(request, f"No seed was added: it {error}." if "would" in str(error) else str(error))
        return redirect("experiment", pk)
    names = ", ".join(map(str, seeds))
    messages.success(request, f"Added seed{'s' if more > 1 else ''} {names}: {len(runs)} runs are queued.")
    return redirect("experiment", pk)


def _next_seeds(experiment: Experiment) -> Iterator[int]:
    rule, present = rule_of(experiment), set(experiment.seeds)
    planned = rule.candidates if rule else []
    yield from (seed for seed in planned if seed not in present)
    excluded = {*present, *planned, *(rule.pilot_seeds if rule else [])}
    yield from (seed for seed in count() if seed not in excluded)
