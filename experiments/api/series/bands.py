"""Bands over seeds: mean and spread of series over runs with the same value of a parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.conf import settings
from django.http.response import HttpResponseBase
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_runs
from experiments.api.http.base import View
from experiments.api.http.caching import Cached
from experiments.api.http.names import check_parameter, check_series, unmatched_part
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Names, Query, RowIds
from experiments.models import Param
from experiments.store.readers.bands import Band, bands

_ARRAYS = {"step": "steps", "mean": "mean", "std": "std", "min": "low", "max": "high", "n": "count"}


class BandPoints(BaseModel):
    """At each step: mean, sample standard deviation (null for fewer than two runs), extremes, and number of runs."""

    step: list[int]
    mean: list[float | None]
    std: list[float | None]
    min: list[float | None]
    max: list[float | None]
    n: list[int]


class BandSeries(BaseModel):
    name: str
    group: str
    points: BandPoints


class BandGroup(BaseModel):
    """The runs whose parameter has this value; null: the runs without that parameter."""

    value: str | None
    runs: list[int]
    series: list[BandSeries]


class BandAnswer(BaseModel):
    """`unmatched` is as in `SeriesAnswer`."""

    by: str | None
    groups: list[BandGroup]
    unmatched: list[str] = []


class BandQuery(Query):
    runs: RowIds = Field(description="run ids, separated by commas")
    names: Names = Field(["loss/*"], description="names or globs; `*` stops at a slash, `**` crosses it")
    by: str | None = Field(None, max_length=100, description="a parameter's dotted path; without it, all are one group")
    max_points: int = Field(1000, ge=4, description="most steps of one series in the answer")


class SeriesBands(Cached, View[BandQuery]):
    """Bands over seeds: mean, spread and range of each series over the runs with the same value of the parameter `by`.
    Values are those recorded at exactly that step; nothing is interpolated. A step is used where every run that spans
    it has recorded it, so a run that ended earlier counts up to its end (see `n`), and all groups have the same steps.
    Long series are reduced to evenly spaced steps that include the first and the last. Values that are not finite are
    left out."""

    query = BandQuery
    answers = {"GET": (200, BandAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        query = self.params
        runs = list(dict.fromkeys(query.runs))
        check_limits(runs, query.max_points)
        visible_runs(request, runs)
        check_parameter(query.by, runs)
        check_series(query.names, runs)
        return self.answer(request, runs, lambda: _answer(runs, query))


def check_limits(runs: list[int], max_points: int) -> None:
    """Raises Invalid where the answer would be too large."""
    if len(runs) > settings.ATTN_MAX_SERIES_RUNS:
        raise Invalid.at("runs", f"must name at most {settings.ATTN_MAX_SERIES_RUNS} runs; you gave {len(runs)}")
    if max_points > settings.ATTN_MAX_POINTS:
        raise Invalid.at("max_points", f"must be at most {settings.ATTN_MAX_POINTS}; you gave {max_points}")


def _answer(runs: list[int], query: BandQuery) -> Response:
    values = dict(Param.objects.filter(run_id__in=runs, key=query.by).values_list("run_id", "text")) if query.by else {}
    labels = {run: values.get(run) for run in runs}
    series = bands(labels, query.names, max_points=query.max_points)
    groups = [
        {
            "value": label,
            "runs": [run for run in runs if labels[run] == label],
            "series": [_plain(band) for band in series if band.label == label],
        }
        for label in dict.fromkeys(labels.values())
    ]
    return Response({"by": query.by, "groups": groups, **unmatched_part(query, [band.name for band in series])})


def _plain(band: Band) -> dict[str, Any]:
    points = {name: np.ascontiguousarray(getattr(band, field)) for name, field in _ARRAYS.items()}
    return {"name": band.name, "group": band.group, "points": points}
