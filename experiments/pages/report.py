"""The report section of an experiment's page, and the seeds that one adds there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Literal

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe
from pydantic import Field

from experiments import lifecycle
from experiments.models import Experiment
from experiments.pages.http.access import experiment_or_404, may_edit, require_editor
from experiments.pages.http.address import Address, refuse, takes
from experiments.verdicts.judge import Verdict
from experiments.verdicts.report import Comparison, Report, UnknownMetric, VariantReport, report
from experiments.verdicts.rules import Rule
from experiments.verdicts.sameness import alarms_of
from experiments.verdicts.verdict import own_verdict, rule_of

MOST_ADDED = 100  # seeds in one go, from the page
_SLUG = {"not supported": "not-supported"}


class ReportAddress(Address):
    metric: str | None = Field(None, max_length=200)
    part: Literal["verdict"] | None = None


@takes(ReportAddress)
@require_safe
def experiment_report(request: HttpRequest, pk: int) -> HttpResponse:
    """The tables alone, or the banner (`?part=verdict`), for the page's live regions."""
    experiment = experiment_or_404(request, pk)
    context = section(request, experiment)
    part = "verdict" if request.GET.get("part") == "verdict" else "report"
    response = render(request, f"pages/experiments/{part}.html", context | {"experiment": experiment})
    response["X-Next-Poll"] = "5" if experiment.runs.filter(finished=None).exists() else "0"
    return response


def section(request: HttpRequest, experiment: Experiment) -> dict[str, Any]:
    """What the section shows, of the series that `?metric=` names."""
    try:
        found, pool = report(experiment, request.user, request.GET.get("metric") or None)
    except UnknownMetric as error:
        refuse(request, "metric", str(error))
        found, pool = report(experiment, request.user)
    verdict, departs_in = own_verdict(experiment, pool)
    tests = {one.variant: one for one in found.tests}
    return {
        "report": found,
        "evidence": pool.choice,
        "alarms": alarms_of(experiment),
        "rows": [_row(found, at, one, tests.get(at)) for at, one in enumerate(found.variants)],
        "verdict": verdict,
        "verdict_slug": _SLUG.get(verdict.result, verdict.result) if verdict else "",
        "departs_in": departs_in,
        "shown": [(one.label, VariantReport({}, pool.term(one.term))) for one in verdict.rule.shown] if verdict else [],
        "more": suggested(experiment, verdict, found),
        "may_edit": may_edit(request, experiment.project),
    }


def _row(found: Report, at: int, one: VariantReport, test: Comparison | None) -> dict[str, Any]:
    against = found.variants[test.reference].label if test else ""
    return {"variant": one, "test": test, "against": against}


def suggested(experiment: Experiment, verdict: Verdict | None, found: Report) -> int:
    """How many more seeds the next look of what is open takes; 0 where nothing is."""
    wanting = [one.more_seeds for one in verdict.findings if one.more_seeds and not one.problem] if verdict else []
    if not wanting:
        return 0
    lacking = max(wanting) - max((len(one.values.missing) for one in found.variants), default=0)
    return min(max(lacking, 0), MOST_ADDED)


@require_POST
def experiment_seeds(request: HttpRequest, pk: int) -> HttpResponse:
    """Add as many seeds as the form says: those of the rule first, then the next whole numbers."""
    experiment = experiment_or_404(request, pk)
    require_editor(request, experiment.project)
    text = request.POST.get("more", "")
    more = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 1 <= more <= MOST_ADDED:
        messages.error(request, f"Say how many seeds to add: a whole number from 1 to {MOST_ADDED}.")
        return redirect("experiment", pk)
    seeds = list(islice(_next_seeds(experiment), more))
    try:
        runs = lifecycle.append_seeds(pk, seeds, request.user, max_runs=settings.ATTN_MAX_RUNS)  # type: ignore[arg-type]
    except (lifecycle.TooMany, lifecycle.NotAllowed) as error:
        messages.error(request, f"Nothing was added: it {error}." if "would" in str(error) else str(error))
        return redirect("experiment", pk)
    named = ", ".join(map(str, seeds))
    messages.success(request, f"Added seed{'s' if more > 1 else ''} {named}: {len(runs)} runs are in the line.")
    return redirect("experiment", pk)


def _next_seeds(experiment: Experiment) -> Iterator[int]:
    rule, there = rule_of(experiment), set(experiment.seeds)
    usual = rule.candidates if rule else []
    yield from (seed for seed in usual if seed not in there)
    yield from (seed for seed in count() if seed not in there and seed not in usual and not _of_pilot(rule, seed))


def _of_pilot(rule: Rule | None, seed: int) -> bool:
    return rule is not None and seed in rule.pilot_seeds
