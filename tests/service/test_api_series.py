"""Series over REST: JSON and Arrow, windows, limits, the heat-map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from experiments import lifecycle, store
from experiments.api.http.renderers import ARROW
from experiments.models import Project, Run

from .api_client import API, get, needs_database, pointers, problem
from .factories import SPEC, claim, make_run

pytestmark = needs_database
NAMES = ["loss/total", "lr", "grad_norm/encoder.0.self/W_q", "grad_norm/encoder.0.self/W_q/head.0"]


def trained(project: Project, values: Any, *, lo: int = 0) -> Run:
    """A run with these values of the first series at each step, and of the others some more."""
    column = np.asarray(values, np.float32)
    steps = np.arange(lo, lo + len(column))
    run = make_run(project, spec={**SPEC, "train": {"steps": 100_000}})
    held = claim(run).held
    matrix = np.stack([column + at for at in range(len(NAMES))], axis=1)
    lifecycle.commit(held, lo, lo + len(column), [store.Incoming("train", NAMES, steps, steps / 10, matrix)])
    return run


def test_a_series_has_the_shape_of_the_contract(api: APIClient, project: Project) -> None:
    run = trained(project, [3.0, 2.0, 1.5])
    (series,) = get(api, "/series/", runs=run.pk, names="loss/*")["series"]
    assert series == {
        "run": run.pk,
        "name": "loss/total",
        "group": "train",
        "count": 3,
        "nonfinite": 0,
        "exact": True,
        "points": {"step": [0, 1, 2], "time": [0.0, 0.1, 0.2], "value": [3.0, 2.0, 1.5]},
    }


def test_a_star_stops_at_a_slash_and_two_cross_it(api: APIClient, project: Project) -> None:
    run = trained(project, [1.0])
    found = get(api, "/series/", runs=run.pk, names="grad_norm/*/*,lr")["series"]
    assert [series["name"] for series in found] == ["lr", "grad_norm/encoder.0.self/W_q"]
    assert len(get(api, "/series/", runs=run.pk, names="grad_norm/**")["series"]) == 2
    assert len(get(api, "/series/", runs=run.pk)["series"]) == 4


def test_few_points_keep_the_ends_and_the_extremes(api: APIClient, project: Project) -> None:
    values = np.ones(1000)
    values[[333, 777]] = 99.0, -99.0
    run = trained(project, values)
    (series,) = get(api, "/series/", runs=run.pk, names="loss/total", max_points=20)["series"]
    steps = series["points"]["step"]
    assert len(steps) <= 20
    assert {0, 333, 777, 999} <= set(steps)
    assert (series["count"], series["exact"]) == (1000, False)


def test_windows_and_what_is_new(api: APIClient, project: Project) -> None:
    run = trained(project, np.arange(50))

    def steps(**window: int) -> list[int]:
        (series,) = get(api, "/series/", runs=run.pk, names="lr", **window)["series"]
        return list(series["points"]["step"])

    assert steps(from_step=10, to_step=12) == [10, 11, 12]
    assert steps(since_step=47) == [48, 49]
    assert steps(since_step=49) == []
    assert steps(since_step=-1) == list(range(50))


def test_what_is_not_finite_is_null_in_json_and_itself_in_arrow(api: APIClient, project: Project) -> None:
    run = trained(project, [1.0, math.nan, math.inf])
    (series,) = get(api, "/series/", runs=run.pk, names="loss/total")["series"]
    assert series["points"]["value"] == [1.0, None, None]
    assert series["nonfinite"] == 2
    table = arrow(api, runs=run.pk, names="loss/total")
    assert math.isnan(table["value"][1].as_py())
    assert math.isinf(table["value"][2].as_py())


def arrow(api: APIClient, **query: Any) -> Any:
    reply = api.get(f"{API}/series/", query, HTTP_ACCEPT=ARROW)
    assert reply.status_code == 200
    assert reply["Content-Type"] == ARROW
    return pa.ipc.open_stream(reply.content).read_all()


def test_arrow_holds_the_same_points_as_json(api: APIClient, project: Project) -> None:
    runs = [trained(project, [1.0, 2.0]), trained(project, [5.0])]
    ids = ",".join(str(run.pk) for run in runs)
    table = arrow(api, runs=ids, names="loss/total,lr")
    assert table.column_names == ["run", "name", "step", "time", "value"]
    points = [
        {"run": series["run"], "name": series["name"], "step": step, "time": time, "value": value}
        for series in get(api, "/series/", runs=ids, names="loss/total,lr")["series"]
        for step, time, value in zip(*series["points"].values(), strict=True)
    ]
    assert table.to_pylist() == points
    assert len(points) == 6
    assert arrow(api, runs=ids, names="nothing").num_rows == 0


def test_a_problem_is_json_even_to_those_who_asked_for_arrow(api: APIClient) -> None:
    problem(api.get(f"{API}/series/?runs=1", HTTP_ACCEPT=ARROW), 404)
    problem(api.get(f"{API}/series/?runs=x", HTTP_ACCEPT=ARROW), 400)
    problem(api.get(f"{API}/series/?runs=1", HTTP_ACCEPT="text/csv"), 406)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "/runs"),
        ("runs=", "/runs"),
        ("runs=0", "/runs/0"),
        ("runs=1&max_points=3", "/max_points"),
        ("runs=1&max_points=100001", "/max_points"),
        ("runs=1&from_step=-1", "/from_step"),
        ("runs=1&since_step=9223372036854775807", "/since_step"),
        ("runs=1&name=lr", "/name"),
        ("runs=" + ",".join(map(str, range(1, 102))), "/runs"),
        ("runs=" + ",".join(["1"] * 1001), "/runs"),
    ],
)
def test_a_request_out_of_bounds_is_400_and_says_where(api: APIClient, query: str, where: str) -> None:
    assert pointers(api.get(f"{API}/series/?{query}")) == [where]


def test_many_runs_cost_no_more_queries_than_one(api: APIClient, project: Project) -> None:
    runs = [trained(project, [1.0, 2.0]).pk for _ in range(4)]
    counts = []
    for ids in (runs[:1], runs):
        with CaptureQueriesContext(connection) as queries:
            get(api, "/series/", runs=",".join(map(str, ids)), names="**")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_run_lists_its_series_with_headline_values(api: APIClient, project: Project) -> None:
    run = trained(project, [3.0, 1.0, 2.0])
    found = get(api, f"/runs/{run.pk}/series/")["results"]
    assert [row["name"] for row in found] == NAMES
    head = found[0]
    assert (head["group"], head["last"], head["min"], head["min_step"], head["max_step"]) == ("train", 2.0, 1.0, 1, 0)
    assert (head["count"], head["nonfinite"], head["last_step"]) == (3, 0, 2)


def test_the_grid_is_series_by_columns(api: APIClient, project: Project) -> None:
    run = trained(project, np.arange(100))
    found = get(api, "/series/grid/", run=run.pk, names="grad_norm/*/*", columns=10)
    assert found["names"] == ["grad_norm/encoder.0.self/W_q"]
    assert found["steps"] == list(range(0, 100, 10))
    assert found["values"] == [[float(step + 9 + 2) for step in range(0, 100, 10)]]
    assert get(api, "/series/grid/", run=run.pk, names="nothing")["values"] == []
    assert pointers(api.get(f"{API}/series/grid/?run={run.pk}&reduce=median")) == ["/reduce"]
    assert pointers(api.get(f"{API}/series/grid/")) == ["/run"]


def test_more_points_than_one_reply_may_carry_are_refused_by_name(
    api: APIClient, project: Project, settings: Any
) -> None:
    run = trained(project, range(5))
    settings.ATTN_MAX_REPLY_POINTS = 100
    assert len(get(api, "/series/", runs=run.pk, max_points=25)["series"]) == 4
    assert pointers(api.get(f"{API}/series/", {"runs": run.pk, "max_points": 26})) == ["/names"]
