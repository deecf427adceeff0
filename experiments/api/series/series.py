"""Series: names and headline values of a run, points of one or more runs, and the heat map."""

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
from experiments.api.http.base import View, fields_of
from experiments.api.http.caching import Cached
from experiments.api.http.headline import Head
from experiments.api.http.names import check_series, unmatched_part
from experiments.api.http.paging import Page
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Names, Query, RowId, RowIds, Step
from experiments.api.http.renderers import ARROW, Arrow, Json, to_json

from .bands import check_limits

MAX_COLUMNS = 4000


class SeriesHead(Head):
    """A series with its group and headline values, which are finite or null."""

    name: str
    group: str


class SeriesHeadPage(Page):
    results: list[SeriesHead]


class Points(BaseModel):
    """Recorded points in order of step; a value that is not finite is null."""

    step: list[int]
    time: list[float]
    value: list[float | None]


class ThinnedTo(BaseModel):
    """What a retention rule has kept: of every `points` points (16^level) the first, the minimum, the maximum and the
    last. `steps` is `points` in training steps, or null where the points are not evenly spaced."""

    level: int
    points: int
    steps: int | None


class OneSeries(BaseModel):
    """A series of one run. `exact`: no point was left out. `thinned` is there where a retention rule deleted points."""

    run: int
    name: str
    group: str
    count: int
    nonfinite: int
    exact: bool
    points: Points
    thinned: ThinnedTo | None = None


class SeriesAnswer(BaseModel):
    """`unmatched`, where present, lists the requested names and globs that no series matches (yet)."""

    series: list[OneSeries]
    unmatched: list[str] = []


class GridAnswer(BaseModel):
    """A heat map: `values` has one row per name and one column per span of steps, which starts at `steps`. `unmatched`
    lists the names and globs that match no series (yet), or none in the group of the others."""

    run: int
    names: list[str]
    steps: list[int]
    values: list[list[float | None]]
    unmatched: list[str] = []


class SeriesQuery(Query):
    runs: RowIds = Field(description="run ids, separated by commas")
    names: Names = Field(["**"], description="names or globs; `*` stops at a slash, `**` crosses it")
    max_points: int = Field(1000, ge=4, description="most points of one series in the answer")
    from_step: Step | None = Field(None, description="first step, inclusive")
    to_step: Step | None = Field(None, description="last step, inclusive")
    since_step: int | None = Field(None, ge=-1, le=2**63 - 2, description="only points after this step")


class GridQuery(Query):
    run: RowId
    names: Names = Field(["grad_norm/*/*"], description="names or globs of one group of series")
    columns: int = Field(400, ge=1, le=MAX_COLUMNS)
    reduce: Literal["max", "last", "mean"] = "max"


class RunSeries(View[Query]):
    """The names, groups and headline values of a run's series. Reads no history."""

    answers = {"GET": (200, SeriesHeadPage)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        heads = [{"name": info.name, "group": info.group, **asdict(info.headline)} for info in store.catalogue(run.pk)]
        return Response({"results": heads, "next": None, "previous": None})


class SeriesPoints(Cached, View[SeriesQuery]):
    """Points of one or more runs. Of each bucket the first, the minimum, the maximum and the last recorded point are
    returned. The answer has an ETag once all runs have ended."""

    query = SeriesQuery
    renderer_classes = (Json, Arrow)
    also = (ARROW,)
    answers = {"GET": (200, SeriesAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        query = self.params
        runs = list(dict.fromkeys(query.runs))
        check_limits(runs, query.max_points)
        visible_runs(request, runs)
        check_series(query.names, runs)
        chosen = store.choose(runs, query.names)
        _check_total(chosen, query)
        make = partial(_points, request, runs, query, chosen)
        return self.answer(request, runs, make, [group_choice.group for group_choice in chosen])


class SeriesGrid(Cached, View[GridQuery]):
    """Series by columns of steps, reduced to the size of a screen. The answer has an ETag once the run has ended."""

    query = GridQuery
    answers = {"GET": (200, GridAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        query = self.params
        visible_runs(request, [query.run])
        check_series(query.names, [query.run])
        return self.answer(request, [query.run], lambda: _grid(query))


def _check_total(chosen: list[store.Chosen], query: SeriesQuery) -> None:
    """Refuse what would not fit into one reply, before reading anything."""
    series, most = sum(len(group_choice.columns) for group_choice in chosen), settings.ATTN_MAX_REPLY_POINTS
    if series * query.max_points > most:
        text = f"{series} series of up to {query.max_points} points are more than the {most:,} points of one reply"
        raise Invalid.at("names", f"{text}; request fewer series or points")


def _points(request: Request, runs: list[int], query: SeriesQuery, chosen: list[store.Chosen]) -> Response:
    window = fields_of(query, "from_step", "to_step", "since_step")
    every = store.read(runs, query.names, max_points=query.max_points, **window, chosen=chosen)
    names = {choice.group.names[column] for choice in chosen for column in choice.columns}
    unmatched = unmatched_part(query, names)
    if request.accepted_renderer.media_type == ARROW:
        return Response(_arrow(every, unmatched), content_type=ARROW)
    return Response({"series": [_plain(series) for series in every], **unmatched})


def _grid(query: GridQuery) -> Response:
    try:
        grid = store.grid(query.run, query.names, columns=query.columns, reduce=query.reduce)
    except store.Thinned as error:
        raise Invalid.at("reduce", str(error)) from None
    rows = [np.ascontiguousarray(row) for row in grid.values]
    steps = np.ascontiguousarray(grid.steps)
    answer = {"run": query.run, "names": grid.names, "steps": steps, "values": rows}
    return Response(answer | unmatched_part(query, grid.names))


def _plain(series: store.Series) -> dict[str, Any]:
    """orjson accepts contiguous arrays, without a Python object for each point."""
    arrays = {"step": series.steps, "time": series.times, "value": series.values}
    head = fields_of(series, "run", "name", "group", "count", "nonfinite", "exact")
    if series.thinned:
        head["thinned"] = {
            "level": series.thinned,
            "points": store.points_per_bucket(series.thinned),
            "steps": series.spacing,
        }
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


def _arrow(every: list[store.Series], unmatched: dict[str, list[str]]) -> bytes:
    """One Arrow stream of one table; values that are not finite are kept. The schema's metadata has `thinned` and
    `unmatched`, where there are any."""
    thinned = {f"{series.run}/{series.name}": series.thinned for series in every if series.thinned}
    metadata = {name: to_json(value) for name, value in ({"thinned": thinned} | unmatched).items() if value}
    schema = _SCHEMA.with_metadata(metadata) if metadata else _SCHEMA
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(_columns(every), schema=schema))
    return bytes(sink.getvalue().to_pybytes())


def _columns(every: list[store.Series]) -> list[pa.Array]:
    lengths = [len(series.steps) for series in every]
    names = list(dict.fromkeys(series.name for series in every))
    codes = {name: code for code, name in enumerate(names)}
    name_column = np.repeat(np.array([codes[series.name] for series in every], np.int32), lengths)
    return [
        pa.array(np.repeat(np.array([series.run for series in every], np.int64), lengths)),
        pa.DictionaryArray.from_arrays(pa.array(name_column, pa.int32()), pa.array(names, pa.string())),
        pa.array(_joined([series.steps for series in every], np.int64)),
        pa.array(_joined([series.times for series in every], np.float64)),
        pa.array(_joined([series.values for series in every], np.float32)),
    ]


def _joined(parts: list[Any], kind: type[np.generic]) -> Any:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
