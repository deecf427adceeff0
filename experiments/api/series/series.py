"""Series: names and headline values of a run, points of one or many runs, and the heat-map."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from django.conf import settings
from django.http.response import HttpResponseBase
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import store
from experiments.api.http.access import visible_run, visible_runs
from experiments.api.http.base import View
from experiments.api.http.caching import Cached
from experiments.api.http.names import check_series, told_unmatched
from experiments.api.http.paging import Page
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Names, Query, RowId, RowIds, Step
from experiments.api.http.renderers import ARROW, Arrow, Json, to_json

from .bands import check_limits

MAX_COLUMNS = 4000


class SeriesHead(BaseModel):
    """A series' place and headline values; finite or null."""

    name: str
    group: str
    last: float | None
    min: float | None
    max: float | None
    last_step: int | None
    min_step: int | None
    max_step: int | None
    count: int
    nonfinite: int


class SeriesHeadPage(Page):
    results: list[SeriesHead]


class Points(BaseModel):
    """Real points in order of step; a value that is not finite is null."""

    step: list[int]
    time: list[float]
    value: list[float | None]


class ThinnedTo(BaseModel):
    """What a retention rule has left for good: of every `points` points (16^level) the first, the minimum, the maximum
    and the last; `steps` is that in training steps, null where these are not evenly spaced."""

    level: int
    points: int
    steps: int | None


class OneSeries(BaseModel):
    """A series of one run; `exact` says that no point was left out. `thinned` is there where some were
    dropped for good."""

    run: int
    name: str
    group: str
    count: int
    nonfinite: int
    exact: bool
    points: Points
    thinned: ThinnedTo | None = None


class SeriesAnswer(BaseModel):
    """`unmatched`, where it is there, lists the names and globs of the question that no series matches (yet)."""

    series: list[OneSeries]
    unmatched: list[str] = []


class GridAnswer(BaseModel):
    """A heat-map: one row of `values` a name, one column a span of steps that begins at `steps`. `unmatched` lists the
    names and globs of which nothing is here: no series (yet), or none in the group of the others."""

    run: int
    names: list[str]
    steps: list[int]
    values: list[list[float | None]]
    unmatched: list[str] = []


class SeriesQuery(Query):
    runs: RowIds = Field(description="run ids, separated by commas")
    names: Names = Field(["**"], description="names or globs; `*` stops at a slash, `**` crosses it")
    max_points: int = Field(1000, ge=4, description="points of one series in the answer, at most")
    from_step: Step | None = Field(None, description="first step, inclusive")
    to_step: Step | None = Field(None, description="last step, inclusive")
    since_step: int | None = Field(None, ge=-1, le=2**63 - 2, description="only what came after this step")


class GridQuery(Query):
    run: RowId
    names: Names = Field(["grad_norm/*/*"], description="names or globs of one group of series")
    columns: int = Field(400, ge=1, le=MAX_COLUMNS)
    reduce: Literal["max", "last", "mean"] = "max"


class RunSeries(View[Query]):
    """The names, groups and headline values of a run's series; reads no history."""

    answers = {"GET": (200, SeriesHeadPage)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        return Response({"results": [asdict(info) for info in store.catalogue(run.pk)], "next": None, "previous": None})


class SeriesPoints(Cached, View[SeriesQuery]):
    """Points of one or many runs. Of each bucket the first, the minimum, the maximum and the last real point. Where
    all runs have ended the answer has an ETag."""

    query = SeriesQuery
    renderer_classes = (Json, Arrow)
    also = (ARROW,)
    answers = {"GET": (200, SeriesAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        asked = self.params
        runs = list(dict.fromkeys(asked.runs))
        check_limits(runs, asked.max_points)
        visible_runs(request, runs)
        check_series(asked.names, runs)
        chosen = store.choose(runs, asked.names)
        _check_total(chosen, asked)
        make = partial(_points, request, runs, asked, chosen)
        return self.answer(request, runs, make, [one.group for one in chosen])


class SeriesGrid(Cached, View[GridQuery]):
    """Series × columns of steps, reduced on the server to what a screen can show. When the run has ended the answer
    has an ETag."""

    query = GridQuery
    answers = {"GET": (200, GridAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        asked = self.params
        visible_runs(request, [asked.run])
        check_series(asked.names, [asked.run])
        return self.answer(request, [asked.run], lambda: _grid(asked))


def _check_total(chosen: list[store.Chosen], asked: SeriesQuery) -> None:
    """Refuse what would not fit into one reply before anything is read."""
    series = sum(len(one.columns) for one in chosen)
    if series * asked.max_points > settings.ATTN_MAX_REPLY_POINTS:
        most = settings.ATTN_MAX_REPLY_POINTS
        text = f"{series} series of up to {asked.max_points} points are more than the {most:,} points of one reply"
        raise Invalid.at("names", f"{text}; ask for fewer series or points")


def _points(request: Request, runs: list[int], asked: SeriesQuery, chosen: list[store.Chosen]) -> Response:
    window = {name: getattr(asked, name) for name in ("from_step", "to_step", "since_step")}
    found = store.read(runs, asked.names, max_points=asked.max_points, **window, chosen=chosen)
    told = told_unmatched(asked, {one.group.names[at] for one in chosen for at in one.columns})
    if request.accepted_renderer.media_type == ARROW:
        return Response(_arrow(found, told), content_type=ARROW)
    return Response({"series": [_plain(series) for series in found], **told})


def _grid(asked: GridQuery) -> Response:
    try:
        grid = store.grid(asked.run, asked.names, columns=asked.columns, reduce=asked.reduce)
    except store.Thinned as error:
        raise Invalid.at("reduce", str(error)) from None
    rows = [np.ascontiguousarray(row) for row in grid.values]
    steps = np.ascontiguousarray(grid.steps)
    told = {"run": asked.run, "names": grid.names, "steps": steps, "values": rows}
    return Response(told | told_unmatched(asked, grid.names))


def _plain(series: store.Series) -> dict[str, Any]:
    """orjson takes contiguous arrays as they are, without a Python object a point."""
    arrays = {"step": series.steps, "time": series.times, "value": series.values}
    head = {name: getattr(series, name) for name in ("run", "name", "group", "count", "nonfinite", "exact")}
    if series.thinned:
        head["thinned"] = {"level": series.thinned, "points": 16**series.thinned, "steps": series.spacing}
    return head | {"points": {name: np.ascontiguousarray(array) for name, array in arrays.items()}}


_SCHEMA = pa.schema(
    [
        ("run", pa.int64()),
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("step", pa.int64()),
        ("time", pa.float64()),
        ("value", pa.float32()),
    ]
)


def _arrow(found: list[store.Series], told: dict[str, list[str]]) -> bytes:
    """One Arrow stream of one table; non-finite values stay what they are. The schema's metadata has `thinned` and
    `unmatched`, where there are any."""
    lengths = [len(series.steps) for series in found]
    names = list(dict.fromkeys(series.name for series in found))
    at = {name: index for index, name in enumerate(names)}
    index = np.repeat(np.array([at[series.name] for series in found], np.int32), lengths)
    columns = [
        pa.array(np.repeat(np.array([series.run for series in found], np.int64), lengths)),
        pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(names, pa.string())),
        pa.array(_joined([series.steps for series in found], np.int64)),
        pa.array(_joined([series.times for series in found], np.float64)),
        pa.array(_joined([series.values for series in found], np.float32)),
    ]
    sink = pa.BufferOutputStream()
    thinned = {f"{series.run}/{series.name}": series.thinned for series in found if series.thinned}
    marks = {name: to_json(what) for name, what in ({"thinned": thinned} | told).items() if what}
    schema = _SCHEMA.with_metadata(marks) if marks else _SCHEMA
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue().to_pybytes())


def _joined(parts: list[Any], kind: type[np.generic]) -> Any:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
