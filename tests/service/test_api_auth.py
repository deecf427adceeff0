"""Who gets in, and who may see and change what."""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from knox.models import AuthToken

from experiments.api.http.schema import document
from experiments.models import Experiment, Run
from experiments.states import State

from .api_client import API, BODY, client_of, get, needs_database, pointers, problem
from .factories import make_project, make_run, make_user, make_worker

pytestmark = needs_database


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


CALLS = [(method, path) for path, methods in document(None)["paths"].items() for method in methods]


def filled(path: str, run: Run | None = None) -> str:
    """The path with what belongs to the run, or with a 1 and a name."""
    known = {"run_id": run.pk if run else 1, "experiment_id": run.experiment_id if run else 1, "name": "why-q"}
    return re.sub(r"\{(\w+)\}", lambda part: str(known.get(part[1], 1)), path)


@pytest.mark.parametrize(("method", "path"), [call for call in CALLS if call[1] != f"{API}/auth/login/"])
def test_without_a_log_in_every_call_is_401(method: str, path: str) -> None:
    problem(client_of().generic(method.upper(), filled(path), "{}", content_type="application/json"), 401)


def test_every_read_and_write_of_the_contract_is_among_the_calls() -> None:
    assert {("get", f"{API}/runs/"), ("post", f"{API}/experiments/"), ("delete", f"{API}/runs/{{run_id}}/")} < set(
        CALLS
    )
    assert len(CALLS) > 35


def test_a_session_needs_its_csrf_token_to_write() -> None:
    user = make_user()
    make_project(editor=user)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    problem(client.post(f"{API}/experiments/", BODY, content_type="application/json"), 403)
    assert not Experiment.objects.exists()
    assert client.get(f"{API}/runs/").status_code == 200


OF_A_PROJECT = [call for call in CALLS if "{run_id}" in call[1] or "{experiment_id}" in call[1]]


@pytest.mark.parametrize(("method", "path"), OF_A_PROJECT)
def test_a_stranger_finds_nothing_of_a_run_or_an_experiment(method: str, path: str) -> None:
    run = make_run(make_project(owner=make_user()))
    before = Run.objects.values().get()
    asked = client_of(make_user()).generic(method.upper(), filled(path, run), "{}", content_type="application/json")
    problem(asked, 404)
    assert Run.objects.values().get() == before


def test_a_stranger_finds_nothing_of_a_project() -> None:
    run = make_run(make_project(owner=make_user()))
    client = client_of(make_user())
    assert len(OF_A_PROJECT) > 18
    for path in (f"series/?runs={run.pk}", f"series/grid/?run={run.pk}", f"series/groups/?runs={run.pk}"):
        problem(client.get(f"{API}/{path}"), 404)
    assert get(client, "/runs/")["results"] == get(client, "/experiments/")["results"] == []


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
