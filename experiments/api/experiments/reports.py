"""Statistics over seeds: reports of experiments, verdicts of presets, and adding seeds."""

from __future__ import annotations

from typing import Annotated

from django.conf import settings
from django.http import Http404
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import lifecycle
from experiments.api.http.access import editable_experiment, person, visible_experiment
from experiments.api.http.base import View, answer
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Query
from experiments.states import State
from experiments.submissions.presets import presets
from experiments.submissions.submission import MAX_SEEDS, Seed
from experiments.verdicts.report import UnknownMetric, report
from experiments.verdicts.sameness import alarms_of
from experiments.verdicts.verdict import own_verdict, preset_verdict

from .experiments import ShortRun
from .report_answers import ReportAnswer, VerdictAnswer
from .report_rows import report_answer, verdict_answer


class ReportQuery(Query):
    metric: str | None = Field(None, max_length=200, description="a series, by its last value; default: the preset's")


class ExperimentReport(View[ReportQuery]):
    """One series by variant and seed: means, intervals and paired tests. Also the verdict of the experiment's preset
    from the experiment's own seeds, unless it trained other variants than the preset's (`departs_in` names the fields).
    Runs of other experiments with the same evidence key count too, where you may see them; `evidence` has that key, and
    how many runs of the same specs have another one."""

    query = ReportQuery
    answers = {"GET": (200, ReportAnswer)}

    def get(self, request: Request, experiment_id: int) -> Response:
        experiment = visible_experiment(request, experiment_id)
        try:
            result, pool = report(experiment, request.user, self.params.metric)
        except UnknownMetric as error:
            raise Invalid.at("metric", str(error)) from None
        judged, departs_in = own_verdict(experiment, pool)
        verdict = verdict_answer(judged, pool) if judged else None
        return answer(report_answer(experiment.pk, result, verdict, alarms_of(experiment), pool, departs_in))


class PresetVerdict(View[Query]):
    """The verdict of a preset, from all runs of its specs that you may see. 404 for a preset without a rule."""

    answers = {"GET": (200, VerdictAnswer)}

    def get(self, request: Request, name: str) -> Response:
        judged = preset_verdict(name, request.user)
        if judged is None:
            problem = "has no verdict" if name in presets() else "does not exist"
            raise Http404(f"the preset '{name}' {problem}")
        return answer(verdict_answer(judged.verdict, judged.pool))


class Seeds(BaseModel):
    """Seeds to add; those that the experiment has already are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_SEEDS)]


class Grown(BaseModel):
    """All seeds of the experiment, and the runs that were added."""

    id: int
    seeds: list[int]
    added: list[ShortRun]


class ExperimentSeeds(View[Query]):
    """Add seeds: one run of every variant for each seed. The definition does not change."""

    body = Seeds
    answers = {"POST": (200, Grown)}

    def post(self, request: Request, experiment_id: int) -> Response:
        experiment = editable_experiment(request, experiment_id)
        seeds = self.sent_as(Seeds).seeds
        try:
            runs = lifecycle.append_seeds(experiment.pk, seeds, person(request), max_runs=settings.ATTN_MAX_RUNS)
        except lifecycle.TooManyRuns as error:
            raise Invalid.at("seeds", str(error)) from None
        experiment.refresh_from_db(fields=["seeds"])
        added = [ShortRun(id=run.pk, seed=run.seed, params=run.params, state=State(run.state)) for run in runs]
        return answer(Grown(id=experiment.pk, seeds=experiment.seeds, added=added))
