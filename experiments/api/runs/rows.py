"""A run as REST and pages show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic import Field as PField

from experiments.api.http.headline import Head
from experiments.models import Headline, Run
from experiments.models.notices import notices_of
from experiments.models.trained_with import trained_with
from experiments.queue.order import waits
from experiments.states import Desired, State

Field = Literal[
    "id", "experiment", "name", "project", "state", "desired", "reason", "detail", "step", "steps", "attempt",
    "params", "seed", "pool", "priority", "worker", "spec", "spec_hash", "summary", "waiting", "notices",
    "trained_with", "created", "started", "finished", "parent", "parent_step",
]  # fmt: skip
FIELDS: tuple[Field, ...] = get_args(Field)
HEAVY: frozenset[Field] = frozenset({"spec", "summary", "detail", "waiting", "notices", "trained_with"})


class QueuePlace(BaseModel):
    """Why a queued run waits. `place` counts from 1 and is null in a back-off and at a limit."""

    place: int | None
    reason: str


class Notice(BaseModel):
    """Something that the run's numbers do not cover: `text` is a sentence with counts, `items` names the first."""

    kind: str
    text: str
    items: list[str] = []


class TrainedWith(BaseModel):
    """What the newest attempt that trained used besides the spec. The first four and `spec_hash` are the evidence key,
    by which reports and verdicts pool runs; a run that continued elsewhere has both values, such as "cpu+cuda"."""

    data_digest: str = PField("", description='of all files that were read; empty: none; "unknown": not stored')
    revision: int | None = PField(None, description="revision of the training code")
    torch: str = PField("", description="major.minor")
    device_kind: str = ""
    device: str = ""
    inputs: dict[str, str] = PField({}, description="each file that was read, and its SHA-256")
    commit: str = ""
    dirty: bool | None = PField(None, description="files differed from the commit; null: unknown")
    lock: str = PField("", description="SHA-256 of requirements.lock")


class RunRow(BaseModel):
    """A run. Lists leave out `spec`, `summary`, `detail`, `waiting`, `notices` and `trained_with` unless `fields=`
    names them."""

    id: int
    experiment: int = 0
    name: str = ""
    project: str = ""
    state: State = State.QUEUED
    desired: Desired = Desired.RUN
    reason: str = ""
    detail: str = ""
    step: int = 0
    steps: int = 0
    attempt: int = 0
    params: dict[str, Any] = {}
    seed: int = 0
    pool: str = ""
    priority: int = 0
    worker: str | None = None
    spec: dict[str, Any] = {}
    spec_hash: str = ""
    summary: dict[str, Head] = {}
    waiting: QueuePlace | None = None
    notices: list[Notice] = []
    trained_with: TrainedWith | None = None
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    parent: int | None = PField(None, description="the run that this one was forked from")
    parent_step: int | None = PField(None, description="completed steps at which it started")


_DIRECT = {"step": "committed_step", "attempt": "fence", "experiment": "experiment_id", "parent": "parent_id"}
_READ: dict[Field, Callable[[Run], Any]] = {
    "name": lambda run: run.experiment.name,
    "project": lambda run: run.project.name,
    "worker": lambda run: run.worker.name if run.worker else None,
}


def rows(runs: Iterable[Run], fields: Iterable[Field]) -> list[dict[str, Any]]:
    """The runs as plain objects; costs one more query for each of summary, waiting, notices and trained_with."""
    wanted = dict.fromkeys(["id", *fields])
    listed = list(runs)
    summaries = _summaries(listed) if "summary" in wanted else {}
    waiting = waits(listed) if "waiting" in wanted else {}
    notices = notices_of([run.pk for run in listed]) if "notices" in wanted else {}
    identities = trained_with(listed) if "trained_with" in wanted else {}
    elsewhere: dict[Any, Callable[[Run], Any]] = {
        "summary": lambda run: summaries.get(run.pk, {}),
        "trained_with": lambda run: identities.get(run.pk),
        "notices": lambda run: notices.get(run.pk, []),
        "waiting": lambda run: asdict(waiting[run.pk]) if run.pk in waiting else None,
    }
    return [
        {field: elsewhere[field](run) if field in elsewhere else _value(run, field) for field in wanted}
        for run in listed
    ]


def row(run: Run) -> dict[str, Any]:
    """One run with all fields."""
    return rows([run], FIELDS)[0]


def _value(run: Run, field: Any) -> Any:
    read = _READ.get(field)
    return read(run) if read else getattr(run, _DIRECT.get(field, field))


def _summaries(runs: list[Run]) -> dict[int, dict[str, dict[str, Any]]]:
    by_run: dict[int, dict[str, dict[str, Any]]] = {}
    heads = Headline.objects.filter(run_id__in=[run.pk for run in runs]).order_by("run_id", "id")
    for head in heads.values("run_id", "key", *Head.model_fields):
        by_run.setdefault(head.pop("run_id"), {})[head.pop("key")] = head
    return by_run
