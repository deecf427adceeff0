"""Bands over seeds are what numpy says of the recorded values; answers of ended runs are not sent twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from experiments import lifecycle, store
from experiments.models import Group, Project, Run
from experiments.states import State
from experiments.store.readers.bands import bands

from .api_client import API, client_of, get, needs_database, pointers, problem
from .factories import claim, make_experiment, make_run, make_user, train

pytestmark = needs_database
NAMES = ["loss/total", "lr"]


def recorded(run: Run, steps: Any, values: Any, *, sealed: bool = False) -> None:
    """Values [steps, 2]; all sealed, or all but the last 700 rows as in a run that goes on."""
    steps = np.asarray(steps)
    for low in range(0, len(steps), 1000):
        cut = slice(low, low + 1000)
        table = np.asarray(values, np.float32)[cut]
        store.append(run.pk, [store.Incoming("train", NAMES, steps[cut], steps[cut] / 10, table)])
    group = Group.objects.get(run=run)
    while store.seal_next(group, int(steps[-1]) + 1 if sealed else int(steps[-1]) - 700, final=sealed):
        pass


@pytest.mark.parametrize("max_points", [10**6, 300, 25, 4])
@pytest.mark.parametrize("shape", ["alike", "lengths", "strides", "uneven"])
def test_a_band_is_of_recorded_values_at_shared_steps(shape: str, max_points: int) -> None:
    random = np.random.default_rng(max_points)
    tables = {}
    for seed, run in enumerate(make_experiment(seeds=[1, 2, 3]).runs.order_by("pk")):
        rows, stride = {"alike": (9000, 1), "lengths": (5000 + 2000 * seed, 1)}.get(shape, (6000, 1 + seed))
        steps = np.arange(rows) * stride + 9
        if shape == "uneven":
            steps = np.unique(random.integers(0, 3000, rows))
        values = random.normal(size=(len(steps), 2)).astype(np.float32)
        values[random.random(values.shape) < 0.01] = np.nan
        recorded(run, steps, values, sealed=seed != 1)
        tables[run.pk] = (steps, values)
    found = bands(dict.fromkeys(tables), ["lr"], max_points=max_points)
    (band,) = found
    assert (band.label, band.name, band.group) == (None, "lr", "train")
    assert 2 <= len(band.steps) <= max_points
    if max_points == 10**6:
        whole = set.union(*(set(steps.tolist()) for steps, _ in tables.values()))
        spanned = {s for s in whole if all(s in t or s > t[-1] or s < t[0] for t, _ in tables.values())}
        assert band.steps.tolist() == sorted(spanned)
    for at, step in enumerate(band.steps.tolist()):
        values = np.array([v[np.searchsorted(s, step), 1] for s, v in tables.values() if s[0] <= step <= s[-1]], float)
        assert all(step in s for s, _ in tables.values() if s[0] <= step <= s[-1])
        values = values[np.isfinite(values)]
        assert band.count[at] == len(values)
        if len(values):
            np.testing.assert_allclose(band.mean[at], values.mean())
            assert (band.low[at], band.high[at]) == (values.min(), values.max())
        assert np.isnan(band.std[at]) if len(values) < 2 else np.isclose(band.std[at], values.std(ddof=1))
    if shape == "alike":
        assert band.steps[[0, -1]].tolist() == [9, 9008]


def test_runs_are_grouped_by_a_parameter(api: APIClient, project: Project) -> None:
    made = make_experiment(project, matrix={"model.attention.variant": ["full", "no_q"]}, seeds=[1, 2])
    runs = list(made.runs.order_by("pk"))
    for run, level in zip(runs, [1.0, 3.0, 10.0, 10.0], strict=True):
        recorded(run, range(4), [[level, step] for step in range(4)])
    ids = ",".join(str(run.pk) for run in runs)
    found = get(api, "/series/groups/", runs=ids, names="loss/*", by="model.attention.variant")
    assert found == {
        "by": "model.attention.variant",
        "groups": [
            {
                "value": value,
                "runs": [run.pk for run in some],
                "series": [{"name": "loss/total", "group": "train", "points": points}],
            }
            for value, some, points in (
                ("full", runs[:2], expected(2.0, 2**0.5, 1.0, 3.0)),
                ("no_q", runs[2:], expected(10.0, 0.0, 10.0, 10.0)),
            )
        ],
    }
    (whole,) = get(api, "/series/groups/", runs=ids, names="lr")["groups"]
    assert (whole["value"], whole["series"][0]["points"]["n"]) == (None, [4] * 4)
    assert pointers(api.get(f"{API}/series/groups/", {"runs": ids, "names": "lr", "by": "no.such"})) == ["/by"]
    assert get(api, "/series/groups/", runs=ids, names="nothing")["groups"][0]["series"] == []


def expected(mean: float, std: float, low: float, high: float) -> dict[str, Any]:
    values = {"mean": mean, "std": pytest.approx(std), "min": low, "max": high, "n": 2}
    return {"step": [0, 1, 2, 3]} | {name: [value] * 4 for name, value in values.items()}


def test_a_series_that_only_some_runs_have_is_a_band_of_those(project: Project) -> None:
    one, other = make_run(project), make_run(project)
    recorded(one, range(3), np.ones((3, 2)))
    steps = np.arange(5)
    store.append(other.pk, [store.Incoming("train", ["lr"], steps, steps / 10, np.ones((5, 1), np.float32))])
    found = {band.name: band for band in bands({one.pk: "a", other.pk: "a"}, ["**"])}
    assert found["loss/total"].count.tolist() == [1, 1, 1]
    assert found["lr"].count.tolist() == [2, 2, 2, 1, 1]


def test_bands_have_limits_and_permissions(api: APIClient, project: Project) -> None:
    run = make_run(project)
    assert pointers(api.get(f"{API}/series/groups/")) == ["/runs"]
    assert pointers(api.get(f"{API}/series/groups/?runs={run.pk}&max_points=3")) == ["/max_points"]
    assert pointers(api.get(f"{API}/series/groups/?runs={','.join(map(str, range(1, 102)))}")) == ["/runs"]
    problem(client_of(make_user()).get(f"{API}/series/groups/?runs={run.pk}"), 404)


def test_many_runs_cost_as_many_queries_as_one(api: APIClient, project: Project) -> None:
    runs = [make_run(project) for _ in range(4)]
    for run in runs:
        recorded(run, range(5000), np.ones((5000, 2)))
    counts = []
    for some in (runs[:1], runs):
        with CaptureQueriesContext(connection) as queries:
            get(api, "/series/groups/", runs=",".join(str(run.pk) for run in some), names="**", max_points=100)
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("path", ["/series/?runs={}", "/series/groups/?runs={}", "/series/grid/?run={}&names=*"])
def test_an_ended_run_is_sent_once(api: APIClient, project: Project, path: str) -> None:
    run = make_run(project)
    held = claim(run).held
    train(held, 0, 10)
    url = f"{API}{path.format(run.pk)}"
    reply = api.get(url)
    assert "ETag" not in reply
    assert reply["Cache-Control"] == "private, no-cache"
    train(held, 10, 20)
    lifecycle.succeed(held)
    first = api.get(url)
    again = api.get(url, headers={"if-none-match": first["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert {"Accept", "Authorization", "Cookie"} <= set(again["Vary"].replace(" ", "").split(","))
    other = api.get(f"{url}&names=lr" if "names" not in url else url.replace("names=*", "names=lr"))
    assert other["ETag"] != first["ETag"]
    problem(client_of(make_user()).get(url, headers={"if-none-match": first["ETag"]}), 404)


def test_a_retried_run_is_sent_anew(api: APIClient, project: Project) -> None:
    run = make_run(project)
    held = claim(run).held
    train(held, 0, 10)
    lifecycle.stopping(held, why="a test")
    lifecycle.cancelled(held)
    before = api.get(f"{API}/series/?runs={run.pk}")
    lifecycle.retry(run.pk, None)
    tag = {"if-none-match": before["ETag"]}
    assert api.get(f"{API}/series/?runs={run.pk}", headers=tag).status_code == 200
    held = claim(run).held
    train(held, 0, 10)
    Run.objects.filter(pk=run.pk).update(state=State.FAILED)
    assert api.get(f"{API}/series/?runs={run.pk}", headers=tag).status_code == 200
    kinds = [api.get(f"{API}/series/?runs={run.pk}", headers={"accept": kind})["ETag"] for kind in ("*/*", ARROW)]
    assert kinds[0] != kinds[1]


ARROW = "application/vnd.apache.arrow.stream"
