"""Experiments: validate, submit, list, show, cancel."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import lifecycle
from experiments.api.http.access import editable_experiment, person, project_for, visible_experiment
from experiments.api.http.base import View, answer, fields_of
from experiments.api.http.names import check_preset, check_project
from experiments.api.http.paging import Key, Page, paginate
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Moment, Paged, Query
from experiments.api.http.tags import HasTag
from experiments.models import Experiment, Project, Run
from experiments.models.runs import RunQuerySet
from experiments.states import ENDED, State
from experiments.submissions import estimates, plugins
from experiments.submissions.submission import Plan, Submission, plan
from experiments.verdicts.keys import Candidate
from experiments.verdicts.today import trained_already

MAX_KEY = 200


class TrainedRow(BaseModel):
    """A succeeded run with the spec and training revision of the planned run at `index`. Where `data_digest` is not
    empty, it read files, and the training is the same only if those have not changed."""

    index: int
    run: int
    torch: str
    device_kind: str
    data_digest: str


class PlannedRow(BaseModel):
    """A run that a submission would make."""

    index: int
    seed: int
    params: dict[str, Any]
    parameters: int | None = Field(description="of the run's model, frozen ones too; null where only a library knows")


class Validated(BaseModel):
    """What a valid submission would expand to."""

    count: int
    steps: int = Field(description="training steps of all runs together")
    parameters: int | None = Field(description="parameters of the base spec's model, frozen ones included")
    seconds: float | None = Field(
        description="training time of all runs together, from similar runs that you may see; null without any"
    )
    pool: str
    project: str
    left_out: list[str] = Field(description="runs of the preset that are left out, and why")
    runs: list[PlannedRow]
    trained: list[TrainedRow] = Field(description="runs that you may see and that need not be trained again")


class ShortRun(BaseModel):
    """A run in the list of an experiment."""

    id: int
    seed: int
    params: dict[str, Any]
    state: State


class Submitted(BaseModel):
    """A stored experiment and its runs; `left_out` is as in validate, and absent where nothing is left out."""

    id: int
    name: str
    left_out: list[str] = []
    runs: list[ShortRun]


class ExperimentRow(BaseModel):
    """An experiment in a list; `states` counts its runs."""

    id: int
    name: str
    project: str
    preset: str
    tags: list[str]
    priority: int
    pool: str
    created: datetime
    created_by: str | None
    states: dict[State, int]


class ExperimentPage(Page):
    results: list[ExperimentRow]


class ExperimentWhole(ExperimentRow):
    """An experiment with its definition and its runs."""

    spec: dict[str, Any]
    matrix: dict[str, list[Any]]
    seeds: list[int]
    notes: str
    runs: list[ShortRun]


class ExperimentQuery(Paged):
    project: str | None = Field(None, max_length=64, description="a project's name")
    preset: str | None = Field(None, max_length=64)
    tag: str | None = Field(None, max_length=50)
    created__gte: Moment | None = None
    created__lt: Moment | None = None


class ExperimentValidate(View[Query]):
    """Check a submission and show the runs it would create; nothing is stored. The name is optional."""

    body = Submission
    answers = {"POST": (200, Validated)}

    def post(self, request: Request) -> Response:
        planned = _plan({"name": "unnamed", **self.sent})
        project = project_for(person(request), planned.submission.project)
        return answer(_validated(planned, project, Run.objects.visible_to(request.user)))


class ExperimentList(View[ExperimentQuery]):
    """The experiments that you may see, newest first; POST submits one."""

    query = ExperimentQuery
    body = Submission
    idempotent = True
    answers = {"GET": (200, ExperimentPage), "POST": (201, Submitted)}

    def get(self, request: Request) -> Response:
        check_project(self.params.project, person(request))
        check_preset(self.params.preset, person(request))
        rows = _filtered(request, self.params).select_related("project", "created_by").defer("spec", "matrix", "notes")
        page, links = paginate(rows, [Key("pk", descending=True)], self.params, request)
        states = _states(page)
        return Response({"results": [_row(experiment, states.get(experiment.pk, {})) for experiment in page], **links})

    def post(self, request: Request) -> Response:
        key = _idempotency_key(request)
        planned = _plan(self.sent)
        project = project_for(person(request), planned.submission.project)
        experiment = lifecycle.submit(planned, project=project, user=person(request), idempotency_key=key)
        _refuse_other_use(experiment, planned, project.pk)
        left_out = [part.text for part in planned.left_out]
        submitted = Submitted(id=experiment.pk, name=experiment.name, left_out=left_out, runs=_runs(experiment))
        body = submitted.model_dump(exclude=None if left_out else {"left_out"})
        return Response(body, status=201, headers={"Location": request.build_absolute_uri(f"{experiment.pk}/")})


class ExperimentDetail(View[Query]):
    """One experiment with its definition and its runs."""

    answers = {"GET": (200, ExperimentWhole)}

    def get(self, request: Request, experiment_id: int) -> Response:
        return _whole(visible_experiment(request, experiment_id))


class ExperimentCancel(View[Query]):
    """Cancel every run that has not ended. 409 when all have ended."""

    answers = {"POST": (200, ExperimentWhole)}

    def post(self, request: Request, experiment_id: int) -> Response:
        experiment = editable_experiment(request, experiment_id)
        alive = experiment.runs.exclude(state__in=ENDED).order_by("pk").values_list("pk", flat=True)
        if not alive:
            raise lifecycle.NotAllowed(f"every run of experiment {experiment_id} has already ended")
        for run_id in alive:
            _cancel_unless_ended(run_id, request)
        return _whole(experiment)


def _validated(planned: Plan, project: Project, visible: RunQuerySet) -> Validated:
    specs = [run.spec for run in planned.runs]
    trained = trained_already({run.spec_hash for run in planned.runs}, visible)
    return Validated(
        count=len(specs),
        steps=sum(spec.train.steps for spec in specs),
        parameters=estimates.parameters(planned.spec),
        seconds=estimates.seconds(specs, visible),
        pool=planned.pool,
        project=project.name,
        left_out=[part.text for part in planned.left_out],
        runs=[
            PlannedRow(index=r.index, seed=r.seed, params=r.params, parameters=estimates.parameters(r.spec))
            for r in planned.runs
        ],
        trained=[_trained(r.index, trained[r.spec_hash]) for r in planned.runs if r.spec_hash in trained],
    )


def _trained(index: int, candidate: Candidate) -> TrainedRow:
    key = fields_of(candidate.identity, "torch", "device_kind", "data_digest")
    return TrainedRow(index=index, run=candidate.run, **key)


def _cancel_unless_ended(run_id: int, request: Request) -> None:
    try:
        lifecycle.request_cancel(run_id, person(request))
    except lifecycle.NotAllowed:
        pass  # it has ended since the query


def _plan(raw: dict[str, Any]) -> Plan:
    return plugins.check(plan(raw, max_runs=settings.ATTN_MAX_RUNS))


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise Invalid.at("Idempotency-Key", f"must be 1 to {MAX_KEY} printable characters")
    return key


def _refuse_other_use(experiment: Experiment, planned: Plan, project_id: int) -> None:
    """An idempotency key belongs to one submission; 409 where it is used for another one."""
    earlier = experiment.request_digest or _digest_of_old(experiment, planned)
    if earlier != planned.request_digest(project_id):
        problem = f"this Idempotency-Key was used for another submission, experiment {experiment.pk}; use a new key"
        raise lifecycle.NotAllowed(problem)


def _digest_of_old(experiment: Experiment, planned: Plan) -> str:
    """The digest of an experiment stored before digests were; empty where its definition differs."""
    if experiment.spec_hash != planned.spec_hash:
        return ""
    kept = fields_of(experiment, "name", "notes", "tags", "priority")
    request = planned.submission.model_copy(update={**kept, "preset": experiment.preset or None})
    return dataclasses.replace(planned, submission=request).request_digest(experiment.project_id)


def _filtered(request: Request, query: ExperimentQuery) -> Any:
    wanted = query.model_dump(include={"preset", "created__gte", "created__lt"}, exclude_none=True)
    rows = Experiment.objects.visible_to(request.user).filter(**wanted)
    rows = rows.filter(project__name=query.project) if query.project is not None else rows
    return rows.filter(HasTag("tags", query.tag)) if query.tag else rows


def _states(experiments: list[Experiment]) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = {}
    runs = Run.objects.filter(experiment__in=experiments).order_by()
    for experiment, state, count in runs.values_list("experiment", "state").annotate(n=Count("pk")):
        counts.setdefault(experiment, {})[state] = count
    return counts


def _row(experiment: Experiment, states: dict[str, int]) -> dict[str, Any]:
    author = experiment.created_by
    return fields_of(experiment, "id", "name", "preset", "tags", "priority", "pool", "created") | {
        "project": experiment.project.name,
        "created_by": author.get_username() if author else None,
        "states": states,
    }


def _whole(experiment: Experiment) -> Response:
    definition = fields_of(experiment, "spec", "matrix", "seeds", "notes")
    runs = [run.model_dump() for run in _runs(experiment)]
    states = _states([experiment]).get(experiment.pk, {})
    return Response(_row(experiment, states) | definition | {"runs": runs})


def _runs(experiment: Experiment) -> list[ShortRun]:
    rows = experiment.runs.order_by("index").only("id", "seed", "params", "state")
    return [ShortRun(id=run.pk, seed=run.seed, params=run.params, state=State(run.state)) for run in rows]
