"""The runs table and what can be done with one run."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from experiments.api.runs.rows import FIELDS, RunRow
from experiments.models import Headline, Project, Run
from experiments.states import State

from .api_client import API, get, needs_database, pointers, problem
from .factories import claim, make_experiment, make_run, train

pytestmark = needs_database
CONTRACT = {
    "id", "experiment", "state", "step", "steps", "attempt", "params", "seed", "spec", "summary", "created", "started",
    "finished", "reason",
}  # fmt: skip


@pytest.fixture
def role() -> str:
    return "editor"


def ids(api: APIClient, **query: Any) -> list[int]:
    return [row["id"] for row in get(api, "/runs/", **query)["results"]]


def head(run: Run, key: str, last: float | None, low: float | None = None, high: float | None = None) -> None:
    Headline.objects.update_or_create(run=run, key=key, defaults={"last": last, "min": low, "max": high})


def test_a_run_shows_the_whole_contract(api: APIClient, project: Project) -> None:
    run = make_run(project, seeds=[5])
    taken = claim(run)
    train(taken.held, 0, 10)
    found = get(api, f"/runs/{run.pk}/")
    assert set(found) >= CONTRACT
    assert (found["state"], found["step"], found["steps"], found["attempt"], found["seed"]) == ("running", 10, 20, 1, 5)
    assert found["spec"]["train"]["steps"] == 20
    assert found["summary"]["loss/total"]["last"] == 9.0
    assert found["started"] is not None
    assert found["finished"] is None


def test_the_row_and_its_document_name_the_same_fields() -> None:
    assert list(RunRow.model_fields) == list(FIELDS)


def test_rows_leave_out_spec_and_summary_unless_asked(api: APIClient, project: Project) -> None:
    run = make_run(project)
    head(run, "loss/total", 1.5)
    (row,) = get(api, "/runs/")["results"]
    assert CONTRACT - set(row) == {"spec", "summary"}
    (row,) = get(api, "/runs/", fields="state,summary")["results"]
    assert set(row) == {"id", "state", "summary"}
    assert row["summary"]["loss/total"]["last"] == 1.5
    (row,) = get(api, "/runs/", fields="spec")["results"]
    assert row["spec"]["task"] == "classify"
    assert pointers(api.get(f"{API}/runs/?fields=id,speck")) == ["/fields"]


def test_runs_are_filtered_by_what_they_are(api: APIClient, project: Project) -> None:
    first = make_experiment(project, seeds=[1, 2], tags=["x"])
    second = make_experiment(project, pool="gpu")
    a, b = first.runs.order_by("pk").values_list("pk", flat=True)
    c = second.runs.get().pk
    Run.objects.filter(pk=b).update(state=State.FAILED)
    assert ids(api) == [c, b, a]
    assert ids(api, experiment=first.pk) == [b, a]
    assert ids(api, experiment=f"{first.pk},{second.pk}", ordering="id") == [a, b, c]
    assert ids(api, state="failed") == [b]
    assert ids(api, state="failed,queued") == [c, b, a]
    assert ids(api, tag="x") == [b, a]
    assert ids(api, pool="gpu") == [c]
    assert ids(api, project=project.name, created__gte="2020-01-01T00:00:00Z") == [c, b, a]
    assert ids(api, created__gt="2999-01-01") == []
    assert pointers(api.get(f"{API}/runs/?project=other")) == ["/project"]


def test_runs_are_filtered_by_any_parameter(api: APIClient, project: Project) -> None:
    values = {"optimizer.lr": [0.001, 0.01], "model.attention.variant": ["full", "no_q"]}
    make_experiment(project, matrix=values)
    runs = {(run.params["optimizer.lr"], run.params["model.attention.variant"]): run.pk for run in Run.objects.all()}
    assert ids(api, **{"param.optimizer.lr": "1e-3", "ordering": "id"}) == [runs[0.001, "full"], runs[0.001, "no_q"]]
    assert ids(api, **{"param.optimizer.lr__gt": "0.005", "param.model.attention.variant": "no_q"}) == [
        runs[0.01, "no_q"]
    ]
    assert len(ids(api, **{"param.model.attention.variant__ne": "full"})) == 2
    assert len(ids(api, **{"param.record.per_head": "true"})) == 4
    assert len(ids(api, **{"param.train.steps__lte": "20"})) == 4
    problem(api.get(f"{API}/runs/", {"param.no.such": "1"}), 400)


def test_runs_are_filtered_by_headline_values(api: APIClient, project: Project) -> None:
    low, high, none = (make_run(project) for _ in range(3))
    head(low, "eval/mask_iou", 0.2, 0.1, 0.9)
    head(high, "eval/mask_iou", 0.8, 0.05, 0.85)
    head(none, "eval/mask_iou", None)
    assert ids(api, **{"metric.eval/mask_iou__gte": "0.8"}) == [high.pk]
    assert ids(api, **{"metric.eval/mask_iou:min__lt": "0.07"}) == [high.pk]
    assert ids(api, **{"metric.eval/mask_iou:max__gt": "0.87"}) == [low.pk]
    assert ids(api, **{"metric.eval/mask_iou:best__gt": "0.87"}) == [low.pk]
    assert ids(api, **{"metric.eval/mask_iou": "0.2"}) == [low.pk]
    assert ids(api, **{"metric.eval/mask_iou__ne": "0.2"}) == [high.pk]
    assert ids(api, **{"metric.loss/total__lt": "1"}) == []


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("metric.loss/total__below=1", "/metric.loss~1total__below"),
        ("metric.loss/total:median=1", "/metric.loss~1total:median"),
        ("metric.loss/total__lt=nan", "/metric.loss~1total__lt"),
        ("metric.=1", "/metric."),
        ("param.x__gt=abc", "/param.x__gt"),
        ("ordering=size", "/ordering"),
        ("ordering=-metric.loss/total:median", "/ordering"),
        ("ordering=metric.loss/total__lt", "/ordering"),
        ("state=done", "/state"),
        ("experiment=abc", "/experiment/0"),
        ("experiment=99999999999999999999", "/experiment/0"),
        ("created__gte=yesterday", "/created__gte"),
        ("created__gte=0001-01-01T00:00:00%2B14:00", "/created__gte"),
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=5&limit=6", "/limit"),
        ("cursor=forged", "/cursor"),
        ("stat=queued", "/stat"),
        ("project=a%00b", "/project"),
        ("project=%ff", "/project"),
    ],
)
def test_a_query_that_makes_no_sense_is_400_and_says_where(api: APIClient, query: str, where: str) -> None:
    assert pointers(api.get(f"{API}/runs/?{query}")) == [where]


def test_a_misspelt_parameter_gets_a_hint(api: APIClient) -> None:
    (error,) = problem(api.get(f"{API}/runs/?stat=queued"), 400)["errors"]
    assert "did you mean 'state'?" in error["message"]


def paged(api: APIClient, **query: Any) -> list[int]:
    """All pages forward; then back from the last one, which must find the same rows."""
    page = get(api, "/runs/", **query)
    pages = [page]
    while page["next"]:
        page = api.get(page["next"]).json()
        pages.append(page)
    back = [pages[-1]]
    while back[0]["previous"]:
        back.insert(0, api.get(back[0]["previous"]).json())
    forward = [[row["id"] for row in part["results"]] for part in pages]
    assert [[row["id"] for row in part["results"]] for part in back] == forward
    assert pages[0]["previous"] is None
    return [run for part in forward for run in part]


@pytest.mark.parametrize("ordering", ["id", "-id", "-metric.loss/total", "metric.loss/total", "param.seed", "-started"])
def test_pages_hold_every_run_once_in_both_directions(api: APIClient, project: Project, ordering: str) -> None:
    runs = list(make_experiment(project, seeds=[4, 2, 9, 1, 7, 3, 8]).runs.order_by("pk"))
    for run, value in zip(runs, [3.0, 1.0, None, 1.0, 2.0], strict=False):  # two equal, one null, two without a row
        head(run, "loss/total", value)
    expected = {
        "id": [0, 1, 2, 3, 4, 5, 6],
        "-id": [6, 5, 4, 3, 2, 1, 0],
        "-metric.loss/total": [0, 4, 3, 1, 6, 5, 2],
        "metric.loss/total": [1, 3, 4, 0, 2, 5, 6],
        "param.seed": [3, 1, 5, 0, 4, 6, 2],
        "-started": [6, 5, 4, 3, 2, 1, 0],
    }[ordering]
    assert paged(api, ordering=ordering, limit=2) == [runs[at].pk for at in expected]


def test_a_page_stays_where_it_was_when_runs_arrive(api: APIClient, project: Project) -> None:
    first = make_experiment(project, seeds=[1, 2, 3, 4])
    page = get(api, "/runs/", limit=2)
    make_experiment(project, seeds=[5, 6])
    second = api.get(page["next"]).json()
    seen = [row["id"] for row in page["results"] + second["results"]]
    assert seen == list(first.runs.order_by("-pk").values_list("pk", flat=True))


def test_a_cursor_belongs_to_its_ordering(api: APIClient, project: Project) -> None:
    make_experiment(project, seeds=[1, 2, 3])
    following = get(api, "/runs/", limit=1)["next"]
    assert pointers(api.get(following + "&ordering=step")) == ["/cursor"]


def test_listing_runs_costs_the_same_however_many_there_are(api: APIClient, project: Project) -> None:
    counts = []
    for _ in range(2):
        for run in make_experiment(project, seeds=[1, 2, 3, 4]).runs.all():
            head(run, "loss/total", 1.0)
        with CaptureQueriesContext(connection) as queries:
            rows = get(api, "/runs/", fields=",".join(FIELDS), ordering="-metric.loss/total")["results"]
        counts.append((len(queries), len(rows)))
    assert counts[0][1] == 4
    assert counts[1] == (counts[0][0], 8)


def test_the_list_does_not_read_specs_it_does_not_show(api: APIClient, project: Project) -> None:
    make_run(project)
    read = []
    for asked in ({}, {"fields": "spec"}):
        with CaptureQueriesContext(connection) as queries:
            get(api, "/runs/", **asked)
        read.append(any('"spec",' in query["sql"] or '."spec"' in query["sql"] for query in queries))
    assert read == [False, True]


def test_a_queued_run_is_cancelled_at_once_and_can_be_retried(api: APIClient, project: Project) -> None:
    run = make_run(project)
    body = api.post(f"{API}/runs/{run.pk}/cancel/").json()
    assert (body["id"], body["state"], body["desired"]) == (run.pk, "cancelled", "cancel")
    problem(api.post(f"{API}/runs/{run.pk}/cancel/"), 409)
    body = api.post(f"{API}/runs/{run.pk}/retry/").json()
    assert (body["state"], body["desired"]) == ("queued", "run")
    assert "queued" in problem(api.post(f"{API}/runs/{run.pk}/retry/"), 409)["detail"]


def test_a_held_run_is_asked_to_stop(api: APIClient, project: Project) -> None:
    run = make_run(project)
    claim(run)
    body = api.post(f"{API}/runs/{run.pk}/cancel/").json()
    assert (body["state"], body["desired"]) == ("running", "cancel")
    assert body["worker"]


@pytest.mark.parametrize(
    "path", ["runs/999999/", "runs/99999999999999999999999/", "experiments/999999/", "nowhere/", "runs"]
)
def test_what_is_not_there_is_a_404_problem(api: APIClient, path: str) -> None:
    problem(api.get(f"{API}/{path}"), 404)


def test_a_method_that_is_not_offered_is_405(api: APIClient) -> None:
    problem(api.delete(f"{API}/runs/"), 405)
