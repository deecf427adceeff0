"""The gradient chain of a run."""

from __future__ import annotations

from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_run
from experiments.api.http.base import View, fields_of
from experiments.api.http.query import Query
from experiments.inspection.gradient_flow import flow


class FlowQuery(Query):
    columns: int = Field(200, ge=1, le=2000, description="most columns, into which the probe steps are reduced")


class LadderRow(BaseModel):
    """`values` are gradient norms, one row per station; `error` is ‖analytic − autograd‖ ÷ ‖autograd‖ at W_q."""

    site: str
    stations: list[str]
    values: list[list[float | None]]
    error: list[float | None] | None


class FlowAnswer(BaseModel):
    """`steps` are the first step of each column, `errors` the largest of the run by kind; `missing` says why there is
    nothing."""

    run: int
    steps: list[int]
    sites: list[LadderRow]
    errors: dict[str, float | None]
    missing: str


MISSING = "this run has no gradient chain (yet); tasks that have one record it at probe steps"


class RunFlow(View[FlowQuery]):
    """The gradient norm at every station from the loss to W_q, for every site, over training."""

    query = FlowQuery
    answers = {"GET": (200, FlowAnswer)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        steps, ladders, errors = flow(run.pk, self.params.columns)
        rows = [fields_of(ladder, "site", "stations", "values", "error") for ladder in ladders]
        head = {"run": run.pk, "steps": steps, "sites": rows, "errors": errors}
        return Response({**head, "missing": "" if rows else MISSING})
