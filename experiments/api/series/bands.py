"""Bands over seeds: mean and spread of series over runs that share a parameter's value."""

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
from experiments.api.http.names import check_parameter, check_series, told_unmatched
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Names, Query, RowIds
from experiments.models import Param
from experiments.store.readers.bands import Band, bands

_ARRAYS = {"step": "steps", "mean": "mean", "std": "std", "min": "low", "max": "high", "n": "count"}


class BandPoints(BaseModel):
    """At each step: mean, sample standard deviation (null for fewer than two runs), extremes, and of how many runs."""

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
    """The runs whose parameter has this value; null for those that lack it."""

    value: str | None
    runs: list[int]
    series: list[BandSeries]


class BandAnswer(BaseModel):
    """`unmatched`, as series have it."""

    by: str | None
    groups: list[BandGroup]
    unmatched: list[str] = []


class BandQuery(Query):
    runs: RowIds = Field(description="run ids, separated by commas")
    names: Names = Field(["loss/*"], description="names or globs; `*` stops at a slash, `**` crosses it")
    by: str | None = Field(None, max_length=100, description="a parameter's dotted path; without it all runs are one")
    max_points: int = Field(1000, ge=4, description="steps of one series in the answer, at most")


class SeriesBands(Cached, View[BandQuery]):
    """Bands over seeds: of the runs with an equal value of the parameter `by`, the mean, spread and range of each
    series at common steps. Every value is a recorded one at exactly that step; nothing is interpolated. A step is
    taken where every run that spans it has recorded it, so a run that ended earlier counts up to its end (`n` tells),
    and all groups have the same steps. Of long series evenly spaced steps remain, the first and the last among
    them; values that are not finite are left out."""

    query = BandQuery
    answers = {"GET": (200, BandAnswer)}

    def get(self, request: Request) -> HttpResponseBase:
        asked = self.params
        runs = list(dict.fromkeys(asked.runs))
        check_limits(runs, asked.max_points)
        visible_runs(request, runs)
        check_parameter(asked.by, runs)
        check_series(asked.names, runs)
        return self.answer(request, runs, lambda: _answer(runs, asked))


def check_limits(runs: list[int], max_points: int) -> None:
    """Raises Invalid where an answer would be too large."""
    if len(runs) > settings.ATTN_MAX_SERIES_RUNS:
        raise Invalid.at(
            "runs", f"at most {settings.ATTN_MAX_SERIES_RUNS} runs in one request; you asked for {len(runs)}"
        )
    if max_points > settings.ATTN_MAX_POINTS:
        raise Invalid.at("max_points", f"must be at most {settings.ATTN_MAX_POINTS}; you gave {max_points}")


def _answer(runs: list[int], asked: BandQuery) -> Response:
    values = dict(Param.objects.filter(run_id__in=runs, key=asked.by).values_list("run_id", "text")) if asked.by else {}
    labels = {run: values.get(run) for run in runs}
    found = bands(labels, asked.names, max_points=asked.max_points)
    groups = [
        {
            "value": label,
            "runs": [run for run in runs if labels[run] == label],
            "series": [_plain(band) for band in found if band.label == label],
        }
        for label in dict.fromkeys(labels.values())
    ]
    return Response({"by": asked.by, "groups": groups, **told_unmatched(asked, [one.name for one in found])})


def _plain(band: Band) -> dict[str, Any]:
    points = {name: np.ascontiguousarray(getattr(band, field)) for name, field in _ARRAYS.items()}
    return {"name": band.name, "group": band.group, "points": points}
