"""Start a run from another run's checkpoint with changed settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import lifecycle
from experiments.api.http.access import editable_run, person
from experiments.api.http.base import View
from experiments.api.http.query import Query
from experiments.models import Run
from experiments.submissions.forks import fork_plan, step_of

from . import rows as run_rows
from .rows import RunRow


class Fork(BaseModel):
    """The changes of a fork. `step` names a checkpoint of the run; without it, the newest is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int | None = Field(None, strict=True, ge=0)
    overrides: dict[str, Any] = Field({}, max_length=200, description="dotted path → value; not the model's shape")
    name: str = Field("", max_length=200, description="name of the fork's experiment")
    priority: int | None = Field(None, strict=True, ge=-100, le=100)


class RunFork(View[Query]):
    """Start a run from a checkpoint of this one. Its series start at the checkpoint's step; `parent` names this run."""

    body = Fork
    answers = {"POST": (201, RunRow)}

    def post(self, request: Request, run_id: int) -> Response:
        editable_run(request, run_id)
        parent = Run.objects.select_related("experiment", "project").get(pk=run_id)
        changes = self.sent_as(Fork)
        step = step_of(parent, changes.step)
        planned = fork_plan(parent, step, changes.overrides, changes.name, changes.priority)
        run = lifecycle.fork(parent, step, planned, person(request))
        stored = Run.objects.select_related("project", "experiment", "worker").get(pk=run.pk)
        return Response(
            run_rows.row(stored), status=201, headers={"Location": request.build_absolute_uri(f"../../{run.pk}/")}
        )
