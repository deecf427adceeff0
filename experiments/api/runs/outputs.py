"""The outputs of a run besides series: log, events, artifacts and predictions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.urls import reverse
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_run
from experiments.api.http.base import View, fields_of
from experiments.api.http.paging import Key, Page, paginate
from experiments.api.http.query import Paged, Step
from experiments.models import Artifact, Event, LogChunk

_OLDEST_FIRST = [Key("pk")]
_NEWEST_STEP_FIRST = [Key("step", descending=True, nullable=True), Key("pk")]


class LogRow(BaseModel):
    """Some lines of the log; `after=` the last id gives those that follow."""

    id: int
    at: datetime
    attempt: int
    text: str


class LogPage(Page):
    results: list[LogRow]


class EventRow(BaseModel):
    """An event of the run."""

    id: int
    at: datetime
    actor: str
    who: str
    kind: str
    from_state: str
    to_state: str
    attempt: int
    step: int | None
    message: str


class EventPage(Page):
    results: list[EventRow]


class ArtifactRow(BaseModel):
    """A file of a run; `url` serves it to everyone who may see the run."""

    id: int
    kind: str
    name: str
    step: int | None
    attempt: int
    media_type: str
    size: int
    meta: dict[str, Any]
    created: datetime
    url: str


class ArtifactPage(Page):
    results: list[ArtifactRow]


class After(Paged):
    after: Step | None = Field(None, description="only rows with a larger id")


class ArtifactQuery(Paged):
    kind: Literal["prediction", "map", "file"] | None = None
    step: Step | None = None


class PredictionQuery(Paged):
    step: Step | None = None


class RunLogs(View[After]):
    """The run's log, oldest first."""

    query = After
    answers = {"GET": (200, LogPage)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        rows = LogChunk.objects.filter(run=run, pk__gt=self.params.after or 0)
        page, links = paginate(rows, _OLDEST_FIRST, self.params, request)
        return Response({"results": [_log(chunk) for chunk in page], **links})


class RunEvents(View[After]):
    """The events of the run and who caused them, oldest first."""

    query = After
    answers = {"GET": (200, EventPage)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        rows = Event.objects.filter(run=run, pk__gt=self.params.after or 0)
        page, links = paginate(rows, _OLDEST_FIRST, self.params, request)
        return Response({"results": [_event(event) for event in page], **links})


class RunArtifacts(View[ArtifactQuery]):
    """The files of the run, newest step first."""

    query = ArtifactQuery
    answers = {"GET": (200, ArtifactPage)}

    def get(self, request: Request, run_id: int) -> Response:
        return _files(request, run_id, self.params, kind=self.params.kind, step=self.params.step)


class RunPredictions(View[PredictionQuery]):
    """Pictures of predictions, drawn by evaluations, newest step first; `meta` describes them."""

    query = PredictionQuery
    answers = {"GET": (200, ArtifactPage)}

    def get(self, request: Request, run_id: int) -> Response:
        return _files(request, run_id, self.params, kind="prediction", step=self.params.step)


def _files(request: Request, run_id: int, query: Paged, **wanted: Any) -> Response:
    run = visible_run(request, run_id, defer=["spec"])
    given = {name: value for name, value in wanted.items() if value is not None}
    page, links = paginate(Artifact.objects.filter(run=run, **given), _NEWEST_STEP_FIRST, query, request)
    return Response({"results": [artifact_row(file) for file in page], **links})


def artifact_row(file: Artifact) -> dict[str, Any]:
    """An artifact as REST and pages show it."""
    head = fields_of(file, "id", "kind", "name", "step", "media_type", "size", "meta", "created")
    return head | {"attempt": file.fence, "url": reverse("artifact", args=[file.pk])}


def _log(chunk: LogChunk) -> dict[str, Any]:
    return {"id": chunk.pk, "at": chunk.at, "attempt": chunk.fence, "text": chunk.text}


def _event(event: Event) -> dict[str, Any]:
    names = ("id", "at", "actor", "who", "kind", "from_state", "to_state", "step", "message")
    return fields_of(event, *names) | {"attempt": event.fence}
