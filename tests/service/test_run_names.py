"""A filter or an order that names nothing is refused, on the page and in REST, and returns no runs."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from experiments.models import Headline, Param

from .api_client import API, client_of, needs_database, problem
from .factories import make_project, make_run, make_user

pytestmark = needs_database


@pytest.fixture
def user() -> Any:
    user = make_user()
    run = make_run(make_project("mine", owner=user))
    Headline.objects.create(run=run, key="eval/own_score", last=0.5, min=0.1, max=0.9)
    Param.objects.create(run=run, key="data.of_a_package", text="x")
    hidden = make_run(make_project("hidden"))
    Headline.objects.create(run=hidden, key="eval/secret", last=0.5)
    Param.objects.create(run=hidden, key="data.secret", text="x")
    return user


REFUSED = [
    ({"param.optimizer.lrr": "1"}, "param.optimizer.lrr", "did you mean 'param.optimizer.lr'"),
    ({"param.lr": "1"}, "param.lr", "did you mean 'param.optimizer.lr'"),
    ({"param.eval/own_score": "1"}, "param.eval/own_score", "did you mean 'metric.eval/own_score'"),
    ({"param.data.secret": "x"}, "param.data.secret", "no run that you may see"),
    ({"param.optimizer.lr__gtt": "1"}, "param.optimizer.lr__gtt", "did you mean '__gt"),
    ({"metric.eval/own_scor__gt": "0"}, "metric.eval/own_scor__gt", "did you mean 'metric.eval/own_score'"),
    ({"metric.eval/secret__gt": "0"}, "metric.eval/secret__gt", "no run that you may see"),
    ({"ordering": "-metric.eval/own_scor"}, "ordering", "did you mean 'metric.eval/own_score'"),
    ({"ordering": "param.train.stpes"}, "ordering", "did you mean 'param.train.steps'"),
    ({"stat": "queued"}, "stat", "did you mean 'state'"),
    ({"tag__ne": "x"}, "tag__ne", "did you mean 'tag'"),
]


@pytest.mark.parametrize(("query", "field", "words"), REFUSED)
def test_what_names_nothing_is_refused_at_its_field(user: Any, query: dict[str, str], field: str, words: str) -> None:
    (error,) = problem(client_of(user).get(f"{API}/runs/", query), 400)["errors"]
    assert error["pointer"] == "/" + field.replace("~", "~0").replace("/", "~1")
    assert words in error["message"]


@pytest.mark.parametrize(("query", "field", "words"), REFUSED)
def test_the_page_reports_it_and_shows_no_runs(
    client: Client, user: Any, query: dict[str, str], field: str, words: str
) -> None:
    client.force_login(user)
    html = client.get("/runs/", query).content.decode().replace("&#x27;", "'")
    assert f"<code>{field}</code>" in html
    assert words in html
    assert "Nothing was searched" in html
    assert 'data-key="r' not in html
    assert 'data-key="r' in client.get("/runs/").content.decode()


@pytest.mark.parametrize(
    "query",
    [
        {"param.optimizer.lr": "0.001"},
        {"param.data.of_a_package": "x"},
        {"metric.eval/own_score__gt": "0.1"},
        {"metric.eval/own_score:best__gt": "0.1", "ordering": "metric.eval/own_score:min"},
        {"ordering": "-metric.eval/mask_iou"},
        {"param.model.attention.by_kind.text.variant": "null"},
    ],
)
def test_fields_of_specs_and_names_that_a_visible_run_has_are_taken(user: Any, query: dict[str, str]) -> None:
    assert client_of(user).get(f"{API}/runs/", query).status_code == 200


def test_the_filter_form_drops_no_comparison(client: Client, user: Any) -> None:
    client.force_login(user)
    where = client.get("/runs/", {"where": "tag", "sign": "ne", "value": "x"})
    assert where["Location"].endswith("?tag__ne=x")


def test_the_list_of_experiments_refuses_what_it_does_not_know(client: Client, user: Any) -> None:
    client.force_login(user)
    html = client.get("/experiments/", {"prject": "mine"}).content.decode().replace("&#x27;", "'")
    assert "unknown query parameter; did you mean 'project'?" in html
    assert 'data-key="e' not in html
    assert "notice-bad" in html
    for query in ({}, {"q": "exp", "project": "mine", "page": "1"}, {"q": "", "project": ""}):
        html = client.get("/experiments/", query).content.decode()
        assert "notice-bad" not in html
        assert 'data-key="e' in html
