"""Runs: the table, one run, cancel and retry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import lifecycle
from experiments.api.http.access import editable_run, person, visible_run
from experiments.api.http.base import View
from experiments.api.http.paging import Page, link
from experiments.api.http.query import Query
from experiments.models import Run

from . import rows as run_rows
from .filters import RunQuery
from .paging import page
from .rows import HEAVY, RunRow

_COLUMNS = ("project__name", "experiment__name", "worker__name")


class RunPage(Page):
    results: list[RunRow]


class RunList(View[RunQuery]):
    """The runs that you may see, filtered and ordered. `param.<path>` compares parameters, `metric.<series>` the last
    value of a series, `metric.<series>:min`, `:max` and `:best` its other headline values; both take `__ne`, `__lt`,
    `__lte`, `__gt` and `__gte`."""

    query = RunQuery
    answers = {"GET": (200, RunPage)}

    def get(self, request: Request) -> Response:
        fields = self.params.columns()
        run_ids = page(self.params, request.query_params, person(request))
        stored = {field.name for field in Run._meta.concrete_fields}
        light = (stored - (HEAVY - set(fields))) - {"project", "experiment", "worker"}
        runs = Run.objects.select_related("project", "experiment", "worker").only(*light, *_COLUMNS)
        rows = runs.in_bulk(run_ids.ids)
        results = run_rows.rows((rows[pk] for pk in run_ids.ids if pk in rows), fields)
        links = {"next": link(request, run_ids.next), "previous": link(request, run_ids.previous)}
        return Response({"results": results, **links})


class RunDetail(View[Query]):
    """One run with its spec and headline values. DELETE deletes an ended run for good: it is gone at once, and its
    series, checkpoints and artifacts soon after. 409 while it has not ended."""

    answers = {"GET": (200, RunRow), "DELETE": (204, None)}

    def get(self, request: Request, run_id: int) -> Response:
        return Response(run_rows.row(visible_run(request, run_id)))

    def delete(self, request: Request, run_id: int) -> Response:
        lifecycle.delete_run(editable_run(request, run_id).pk, person(request))
        return Response(status=204)


class RunCancel(View[Query]):
    """Cancel a run: at once where no worker executes it, else at its next step. 409 when it has ended."""

    answers = {"POST": (200, RunRow)}

    def post(self, request: Request, run_id: int) -> Response:
        run = editable_run(request, run_id)
        return Response(run_rows.row(lifecycle.request_cancel(run.pk, person(request))))


class Retry(BaseModel):
    """Where to continue; without fields, from the newest checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    from_start: bool = False


class RunRetry(View[Query]):
    """Queue a failed or cancelled run again, from its newest checkpoint. `from_start` deletes its checkpoints and
    series and trains it from step 0. 409 in any other state."""

    body = Retry
    answers = {"POST": (200, RunRow)}

    def post(self, request: Request, run_id: int) -> Response:
        run = editable_run(request, run_id)
        from_start = self.sent_as(Retry).from_start
        return Response(run_rows.row(lifecycle.retry(run.pk, person(request), from_start=from_start)))
