"""Submitting: what is stored, what is refused and where the refusal points."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from experiments.models import Experiment, Param, Run
from experiments.states import State
from experiments.submissions.presets import presets

from .api_client import API, BODY, client_of, get, needs_database, pointers, problem
from .factories import claim, make_experiment, make_project, make_run, make_user

pytestmark = needs_database
SPEC = BODY["spec"]


@pytest.fixture
def client() -> APIClient:
    """An editor of one project."""
    user = make_user("ada")
    make_project("vision", editor=user)
    return client_of(user)


def submit(client: APIClient, **changes: Any) -> Any:
    return client.post(f"{API}/experiments/", {**BODY, **changes})


def test_a_submission_answers_201_with_its_runs(client: APIClient) -> None:
    matrix = {"model.attention.variant": ["full", "no_q"]}
    reply = submit(client, matrix=matrix, seeds=[0, 1], tags=["first"], notes="why not")
    assert reply.status_code == 201
    body = reply.json()
    assert set(body) == {"id", "name", "runs"}
    assert reply["Location"].endswith(f"{API}/experiments/{body['id']}/")
    assert [(run["seed"], run["params"], run["state"]) for run in body["runs"]] == [
        (seed, {"model.attention.variant": variant}, "queued") for variant in ("full", "no_q") for seed in (0, 1)
    ]
    whole = get(client, f"/experiments/{body['id']}/")
    assert whole["runs"] == body["runs"]
    assert (whole["project"], whole["created_by"], whole["tags"]) == ("vision", "ada", ["first"])
    assert whole["matrix"] == matrix
    assert whole["spec"]["train"]["steps"] == 20
    assert whole["states"] == {"queued": 4}


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_can_be_read_and_submitted_as_it_stands(client: APIClient, name: str) -> None:
    preset = get(client, f"/presets/{name}/")
    assert preset in get(client, "/presets/")["results"]
    reply = client.post(f"{API}/experiments/", {"name": name, "preset": name})
    assert reply.status_code == 201, reply.content
    assert get(client, f"/experiments/{reply.json()['id']}/")["preset"] == name


def test_an_unknown_preset_is_404(client: APIClient) -> None:
    assert "nope" in problem(client.get(f"{API}/presets/nope/"), 404)["detail"]


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"spec": None, "preset": "sam3-lit"}, ["/preset"]),
    ({"spec": None}, ["/preset"]),
    ({"preset": "learn-qkv"}, ["/spec"]),
    ({"overrides": {"train.steps": -5}}, ["/overrides/train.steps"]),
    ({"spec": {**SPEC, "train": {"steps": -5}}}, ["/spec/train/steps"]),
    ({"spec": {**SPEC, "model": {"d_model": 65, "heads": 4}}}, ["/spec/model/d_model"]),
    ({"overrides": {"model.d_model": 66}}, ["/overrides/model.d_model"]),
    ({"spec": {**SPEC, "trian": {}}}, ["/spec/trian"]),
    ({"overrides": {"train.stepz": 5}}, ["/overrides/train.stepz"]),
    ({"matrix": {"model.attention.variant": ["full", "no_such"]}}, ["/matrix/model.attention.variant"]),
    ({"matrix": {"train.steps": list(range(1, 1001))}, "seeds": list(range(1000))}, ["/matrix"]),
    ({"seedz": [1]}, ["/seedz"]),
    ({"name": ""}, ["/name"]),
    ({"name": "a", "priority": "high", "tags": [""]}, ["/priority", "/tags/0"]),
    ({"project": "nowhere"}, ["/project"]),
    ({"pool": "NOT A POOL"}, ["/pool"]),
    ({"spec": {**SPEC, "a/b~c": 1}}, ["/spec/a~1b~0c"]),
    ({"spec": []}, ["/spec"]),
    ({"seeds": [2**31]}, ["/seeds/0"]),
]


@pytest.mark.parametrize(("changes", "where"), BAD, ids=[",".join(where) for _, where in BAD])
@pytest.mark.parametrize("call", ["experiments/", "experiments/validate/"])
def test_bad_input_points_at_the_field_and_stores_nothing(
    client: APIClient, changes: dict[str, Any], where: list[str], call: str
) -> None:
    body = {key: value for key, value in {**BODY, **changes}.items() if value is not None}
    assert pointers(client.post(f"{API}/{call}", body)) == where
    assert not Experiment.objects.exists()
    assert not Run.objects.exists()
    assert not Param.objects.exists()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "not valid JSON"),
        ('{"name": NaN}', "not valid JSON"),
        ('{"name": "\\u0000"}', "U+0000"),
        ('{"name": "\\ud800"}', "not valid JSON"),
        ('{"spec": ' + "[" * 100 + "]" * 100 + "}", "nested"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(client: APIClient, raw: str, words: str) -> None:
    reply = client.generic("POST", f"{API}/experiments/", raw, content_type="application/json")
    assert words in problem(reply, 400)["detail"]


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ('{"name": "a", "name": "b"}', "/name"),
        ('{"name": "a", "n\\u0061me": "b"}', "/name"),
        ('{"name": "a", "spec": {"train": {"steps": 1, "steps": 2}}}', "/spec/train/steps"),
        ('{"name": "a", "matrix": {"model.attention": [{}, {"init": "zeros", "init": "normal"}]}}',
         "/matrix/model.attention/1/init"),
    ],
)  # fmt: skip
def test_a_name_that_stands_twice_in_a_body_is_refused_by_name(client: APIClient, raw: str, where: str) -> None:
    reply = client.generic("POST", f"{API}/experiments/validate/", raw, content_type="application/json")
    assert pointers(reply) == [where]
    assert "duplicate name" in problem(reply, 400)["detail"]


def test_a_body_is_an_object_in_json_and_not_too_large(client: APIClient, settings: Any) -> None:
    assert pointers(client.post(f"{API}/experiments/", [BODY])) == [""]
    problem(client.generic("POST", f"{API}/experiments/", "name=x", content_type="text/plain"), 415)
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    problem(submit(client, notes="x" * 2000), 413)


def test_unknown_query_parameters_are_refused_on_writes_too(client: APIClient) -> None:
    assert pointers(client.post(f"{API}/experiments/?dry_run=1", BODY)) == ["/dry_run"]


def test_validate_tells_the_runs_and_stores_nothing(client: APIClient) -> None:
    body = {key: value for key, value in BODY.items() if key != "name"}
    matrix = {"optimizer.lr": [0.001, 0.01]}
    reply = client.post(f"{API}/experiments/validate/", {**body, "matrix": matrix, "seeds": [7, 8]})
    found = reply.json()
    assert reply.status_code == 200
    assert (found["count"], found["steps"], found["pool"], found["project"]) == (4, 80, "cpu", "vision")
    assert found["parameters"] > 10_000
    assert found["seconds"] is None
    run = {"index": 3, "seed": 8, "params": {"optimizer.lr": 0.01}, "parameters": found["parameters"]}
    assert found["runs"][3] == run
    assert not Experiment.objects.exists()


def test_validate_knows_the_time_of_runs_that_were_measured_and_may_be_seen(client: APIClient) -> None:
    def seconds(caller: APIClient) -> float | None:
        reply = caller.post(
            f"{API}/experiments/validate/", {**BODY, "overrides": {"train.steps": 200}, "seeds": [1, 2]}
        )
        return reply.json()["seconds"]  # type: ignore[no-any-return]

    run = Run.objects.get(pk=submit(client).json()["runs"][0]["id"])
    run.headlines.create(key="time/step_ms", last=50.0)
    assert seconds(client) is None
    Run.objects.update(state=State.SUCCEEDED)
    assert seconds(client) == 2 * 200 * 0.05
    stranger = make_user()
    make_project(editor=stranger)
    assert seconds(client_of(stranger)) is None


def test_the_same_idempotency_key_makes_one_experiment(client: APIClient) -> None:
    first = client.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY="k1")
    second = client.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY="k1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert Experiment.objects.count() == Run.objects.count() == 1
    assert client.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY="k2").json()["id"] != first.json()["id"]


def test_an_idempotency_key_is_not_taken_for_another_submission(client: APIClient) -> None:
    client.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY="k1")
    changed = {**BODY, "overrides": {"train.steps": 40}}
    problem(client.post(f"{API}/experiments/", changed, HTTP_IDEMPOTENCY_KEY="k1"), 409)
    assert Experiment.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [{"notes": "other"}, {"tags": ["b"]}, {"tags": ["a", "b"]}, {"priority": 7}, {"name": "other"}, {"seeds": [3]},
     {"matrix": {"train.batch_size": [8]}}, {"pool": "lab"}],
)  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_the_same_key_with_any_other_body_is_409(client: APIClient, change: dict[str, Any], old: bool) -> None:
    body = {**BODY, "tags": ["a"], "notes": "n", "priority": 2, "seeds": [0]}
    client.post(f"{API}/experiments/", body, HTTP_IDEMPOTENCY_KEY="k1")
    if old:
        Experiment.objects.update(request_digest="")  # stored by a version before digests
    problem(client.post(f"{API}/experiments/", {**body, **change}, HTTP_IDEMPOTENCY_KEY="k1"), 409)
    assert client.post(f"{API}/experiments/", body, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201
    respelled = {**body, "spec": {**body["spec"], "seed": 0}}
    assert client.post(f"{API}/experiments/", respelled, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201
    assert Experiment.objects.count() == 1


def test_the_same_key_for_another_project_is_409() -> None:
    user = make_user()
    make_project("a-first", editor=user), make_project("b-second", editor=user)
    client = client_of(user)
    for project, status in (("a-first", 201), ("b-second", 409)):
        reply = client.post(f"{API}/experiments/", {**BODY, "project": project}, HTTP_IDEMPOTENCY_KEY="k")
        assert reply.status_code == status


def test_an_idempotency_key_belongs_to_its_user(client: APIClient) -> None:
    other = make_user()
    make_project(editor=other)
    ids = [
        c.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY="k").json()["id"] for c in (client, client_of(other))
    ]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_an_idempotency_key_has_bounds(client: APIClient, key: str) -> None:
    assert pointers(client.post(f"{API}/experiments/", BODY, HTTP_IDEMPOTENCY_KEY=key)) == ["/Idempotency-Key"]


def test_with_several_projects_one_has_to_be_named() -> None:
    user = make_user()
    first, second = make_project("a-first", editor=user), make_project("b-second", owner=user)
    client = client_of(user)
    reply = submit(client)
    assert pointers(reply) == ["/project"]
    assert "a-first, b-second" in reply.json()["errors"][0]["message"]
    assert submit(client, project=second.name).status_code == 201
    assert first.experiments.count() == 0


def test_without_a_project_nothing_can_be_submitted() -> None:
    assert pointers(submit(client_of(make_user()))) == ["/project"]


def test_experiments_are_filtered_by_project_preset_and_tag(client: APIClient) -> None:
    ids = [submit(client, tags=tags).json()["id"] for tags in (["红色"], ["red", 'a"b'], ["re"])]
    assert [row["id"] for row in get(client, "/experiments/")["results"]] == ids[::-1]
    assert [row["id"] for row in get(client, "/experiments/", tag="红色")["results"]] == [ids[0]]
    assert [row["id"] for row in get(client, "/experiments/", tag="red")["results"]] == [ids[1]]
    assert [row["id"] for row in get(client, "/experiments/", tag='a"b')["results"]] == [ids[1]]
    assert pointers(client.get(f"{API}/experiments/?project=elsewhere")) == ["/project"]
    assert get(client, "/experiments/", preset="learn-qkv")["results"] == []
    assert get(client, "/experiments/", created__lt="2020-01-01")["results"] == []
    assert pointers(client.get(f"{API}/experiments/?tags=red")) == ["/tags"]


def test_listing_experiments_costs_the_same_however_many_there_are(client: APIClient) -> None:
    counts = []
    for _ in range(2):
        for _ in range(3):
            submit(client, seeds=[1, 2, 3])
        with CaptureQueriesContext(
            connection,
        ) as queries:
            get(client, "/experiments/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_cancelling_an_experiment_stops_what_waits_and_asks_what_runs() -> None:
    user = make_user()
    project = make_project(editor=user)
    experiment = make_experiment(project, seeds=[1, 2])
    claim()
    client = client_of(user)
    body = client.post(f"{API}/experiments/{experiment.pk}/cancel/").json()
    assert [run["state"] for run in body["runs"]] == ["running", "cancelled"]
    assert Run.objects.filter(experiment=experiment, desired="cancel").count() == 2
    assert client.post(f"{API}/experiments/{experiment.pk}/cancel/").status_code == 200
    Run.objects.update(state=State.CANCELLED)
    problem(client.post(f"{API}/experiments/{experiment.pk}/cancel/"), 409)


def test_a_cancel_takes_no_fields() -> None:
    user = make_user()
    run = make_run(make_project(editor=user))
    assert pointers(client_of(user).post(f"{API}/runs/{run.pk}/cancel/", {"force": True})) == ["/force"]
    run.refresh_from_db()
    assert run.state == State.QUEUED


def test_what_an_override_leaves_out_of_a_preset_is_answered(client: APIClient) -> None:
    body = {"name": "short", "preset": "why-q", "overrides": {"data.tokens": 8}, "seeds": [0]}
    checked = client.post(f"{API}/experiments/validate/", body).json()
    stored = client.post(f"{API}/experiments/", body).json()
    assert checked["count"] == len(stored["runs"]) == 16
    assert checked["left_out"] == stored["left_out"]
    assert "3 runs of task segment, a further part of the preset, are left out" in stored["left_out"][0]
