"""The gradient chain of a run."""

from __future__ import annotations

from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_run
from experiments.api.http.base import View
from experiments.api.http.query import Query
from experiments.inspection.gradient_flow import Ladder, flow


class FlowQuery(Query):
    columns: int = Field(200, ge=1, le=2000, description="columns that the probe steps are brought to at most")


class LadderRow(BaseModel):
    """`values` are gradient norms, a row a station; `error` is ‖analytic − autograd‖ ÷ ‖autograd‖ at the end."""

    site: str
    stations: list[str]
    values: list[list[float | None]]
    error: list[float | None] | None


class FlowAnswer(BaseModel):
    """`steps` are each column's first; `errors` the run's largest by kind, `missing` says why there is nothing."""

    run: int
    steps: list[int]
    sites: list[LadderRow]
    errors: dict[str, float | None]
    missing: str


MISSING = "this run has followed no gradient (yet): the chain is recorded at probe steps, by tasks that have one"


class RunFlow(View[FlowQuery]):
    """The norm of the gradient at every station from the loss to W_q, at every site, over training."""

    query = FlowQuery
    answers = {"GET": (200, FlowAnswer)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        steps, ladders, errors = flow(run.pk, self.params.columns)
        rows = [_row(ladder) for ladder in ladders]
        told = {"run": run.pk, "steps": steps, "sites": rows, "errors": errors}
        return Response({**told, "missing": "" if rows else MISSING})


def _row(ladder: Ladder) -> dict[str, object]:
    return {name: getattr(ladder, name) for name in ("site", "stations", "values", "error")}
