"""Who gets in, and who may see and change what."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from knox.models import AuthToken

from experiments.models import Experiment, Run
from experiments.states import State

from .api_client import API, BODY, client_of, get, needs_database, pointers, problem
from .factories import make_project, make_run, make_user, make_worker

pytestmark = needs_database

READS = ["", "series/", "logs/", "events/", "artifacts/", "predictions/"]


def basic(name: str, password: str) -> dict[str, Any]:
    return {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_basic_credentials_give_a_token_that_works_and_expires() -> None:
    make_user("ada")
    reply = client_of().post(f"{API}/auth/login/", **basic("ada", "correct horse"))
    assert reply.status_code == 200
    assert set(reply.json()) == {"token", "expiry"}
    client = client_of()
    client.credentials(HTTP_AUTHORIZATION=f"Token {reply.json()['token']}")
    assert get(client, "/runs/")["results"] == []
    AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    problem(client.get(f"{API}/runs/"), 401)


def test_json_credentials_give_a_token_and_only_its_digest_is_stored() -> None:
    make_user("ada")
    reply = client_of().post(f"{API}/auth/login/", {"username": "ada", "password": "correct horse"})
    stored = AuthToken.objects.get()
    assert reply.json()["token"] not in (stored.digest, stored.token_key)


def test_a_session_can_be_logged_in_and_still_ask_for_a_token() -> None:
    user = make_user("ada")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    body = {"username": "ada", "password": "correct horse"}
    assert client.post(f"{API}/auth/login/", body, content_type="application/json").status_code == 200


def test_log_out_ends_the_token() -> None:
    client = client_of(make_user())
    assert client.post(f"{API}/auth/logout/").status_code == 204
    problem(client.get(f"{API}/runs/"), 401)


@pytest.mark.parametrize(
    "sent",
    [
        "Basic !!",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic",
        "Basic " + base64.b64encode(b"a\0b:c").decode(),
    ],
)
def test_credentials_that_cannot_be_read_are_refused(sent: str) -> None:
    problem(client_of().post(f"{API}/auth/login/", HTTP_AUTHORIZATION=sent), 401)


def test_a_wrong_password_is_401_and_many_of_them_lock_the_door(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    make_user("ada")
    replies = [client_of().post(f"{API}/auth/login/", **basic("ada", "wrong")) for _ in range(4)]
    assert replies[0].status_code == 401
    assert "Basic" in replies[0]["WWW-Authenticate"]
    assert replies[-1].status_code == 429
    problem(client_of().post(f"{API}/auth/login/", **basic("ada", "correct horse")), 429)


def test_log_in_points_at_the_field_that_is_missing_or_unknown() -> None:
    assert pointers(client_of().post(f"{API}/auth/login/", {"username": "ada"})) == ["/password"]
    body = {"username": "ada", "password": "x", "remember": True}
    assert pointers(client_of().post(f"{API}/auth/login/", body)) == ["/remember"]


@pytest.mark.parametrize("token", ["nonsense", "a b", "\xff\xfe", ""])
def test_a_wrong_token_is_401(token: str) -> None:
    reply = client_of().get(f"{API}/runs/", HTTP_AUTHORIZATION=f"Token {token}")
    assert problem(reply, 401)["title"] == "Unauthorized"
    assert reply["WWW-Authenticate"] == "Token"


@pytest.mark.parametrize(
    "path", ["presets", "experiments", "experiments/1", "runs", "runs/1", "series", "series/grid", "workers",
             "queue", "schema"]
)  # fmt: skip
def test_without_a_log_in_every_read_is_401(path: str) -> None:
    problem(client_of().get(f"{API}/{path}/"), 401)


@pytest.mark.parametrize(
    "path", ["experiments", "experiments/validate", "runs/1/cancel", "runs/1/retry", "auth/logout"]
)
def test_without_a_log_in_every_write_is_401(path: str) -> None:
    problem(client_of().post(f"{API}/{path}/", {}), 401)


def test_a_session_needs_its_csrf_token_to_write() -> None:
    user = make_user()
    make_project(editor=user)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    problem(client.post(f"{API}/experiments/", BODY, content_type="application/json"), 403)
    assert not Experiment.objects.exists()
    assert client.get(f"{API}/runs/").status_code == 200


def test_a_stranger_finds_nothing_of_a_project() -> None:
    run = make_run(make_project(owner=make_user()))
    client = client_of(make_user())
    for path in READS:
        problem(client.get(f"{API}/runs/{run.pk}/{path}"), 404)
    for path in (f"experiments/{run.experiment_id}/", f"series/?runs={run.pk}", f"series/grid/?run={run.pk}"):
        problem(client.get(f"{API}/{path}"), 404)
    for verb in (f"runs/{run.pk}/cancel/", f"runs/{run.pk}/retry/", f"experiments/{run.experiment_id}/cancel/"):
        problem(client.post(f"{API}/{verb}"), 404)
    assert get(client, "/runs/")["results"] == get(client, "/experiments/")["results"] == []
    run.refresh_from_db()
    assert run.state == State.QUEUED


def test_one_hidden_run_hides_the_whole_answer_of_series() -> None:
    user = make_user()
    seen, hidden = make_run(make_project(viewer=user)), make_run()
    reply = client_of(user).get(f"{API}/series/?runs={seen.pk},{hidden.pk}")
    assert f"no run {hidden.pk}," in problem(reply, 404)["detail"]


def test_a_viewer_sees_but_may_not_change() -> None:
    user = make_user()
    project = make_project(viewer=user)
    run = make_run(project)
    client = client_of(user)
    assert get(client, f"/runs/{run.pk}/")["id"] == run.pk
    for verb in (f"runs/{run.pk}/cancel/", f"runs/{run.pk}/retry/", f"experiments/{run.experiment_id}/cancel/"):
        problem(client.post(f"{API}/{verb}"), 403)
    problem(client.post(f"{API}/experiments/", {**BODY, "project": project.name}), 403)
    assert Run.objects.get().state == State.QUEUED


def test_the_queue_and_the_workers_show_names_only_of_runs_one_may_see() -> None:
    user = make_user()
    mine, other = make_run(make_project(viewer=user)), make_run()
    Run.objects.filter(pk=other.pk).update(worker=make_worker(), state=State.RUNNING)
    client = client_of(user)
    (pool,) = get(client, "/queue/")["pools"]
    assert (pool["pool"], pool["queued"], pool["held"]) == ("cpu", 1, 1)
    assert [row["id"] for row in pool["next"]] == [mine.pk]
    (worker,) = get(client, "/workers/")["results"]
    assert (worker["held"], worker["runs"], worker["alive"]) == (1, [], True)


def test_an_inactive_user_is_out_at_once() -> None:
    user = make_user()
    client = client_of(user)
    user.is_active = False
    user.save()
    problem(client.get(f"{API}/runs/"), 401)
