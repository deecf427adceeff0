"""The admin: runs are only looked at, several can be compared, workers can be drained."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from knox.models import AuthToken

from experiments import lifecycle
from experiments.models import Run, Worker

from .api_client import needs_database
from .factories import claim, make_experiment, make_project, make_run, make_user, make_worker, train

pytestmark = needs_database
RUNS = "/admin/experiments/run/"


@pytest.fixture
def browser() -> Client:
    browser = Client()
    browser.force_login(make_user("root", is_staff=True, is_superuser=True))
    return browser


def act(browser: Client, where: str, action: str, rows: Any) -> Any:
    body = {"action": action, "_selected_action": [row.pk for row in rows]}
    return browser.post(where, body)


def test_every_list_and_form_opens(browser: Client) -> None:
    project = make_project(owner=make_user())
    run = make_run(project)
    held = claim(run).held
    train(held, 0, 10)
    lifecycle.publish_checkpoint(held, step=10, path="x", sha256="0" * 64, size=1)
    for name in ("project", "experiment", "run", "worker"):
        listing = browser.get(f"/admin/experiments/{name}/?q=a")
        assert listing.status_code == 200
    addresses = [f"run/{run.pk}", f"experiment/{run.experiment_id}", f"project/{project.pk}", "project/add"]
    for address in addresses:
        assert browser.get(f"/admin/experiments/{address}/", follow=True).status_code == 200, address


def test_tokens_are_listed_without_what_is_stored_of_them(browser: Client) -> None:
    token, _ = AuthToken.objects.create(user=make_user("ada"))
    page = browser.get("/admin/knox/authtoken/").content.decode()
    assert f">{token.user}</" in page
    assert token.token_key not in page
    assert token.digest not in page.replace(f'value="{token.pk}"', "")  # the checkbox that revokes it


def test_runs_and_experiments_cannot_be_added_changed_or_deleted(browser: Client) -> None:
    run = make_run()
    for where in (RUNS, "/admin/experiments/experiment/"):
        assert browser.get(f"{where}add/").status_code == 403
    assert browser.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"}).status_code == 403
    assert browser.post(f"{RUNS}{run.pk}/change/", {"state": "succeeded"}).status_code == 403
    make_project()
    assert "delete_selected" in browser.get("/admin/experiments/project/").content.decode()
    assert "delete_selected" not in browser.get(RUNS).content.decode()
    assert Run.objects.get().state == "queued"


def test_selected_runs_open_in_compare(browser: Client) -> None:
    runs = list(make_experiment(seeds=[1, 2, 3]).runs.order_by("pk"))
    reply = act(browser, RUNS, "compare", runs[:2])
    assert reply.status_code == 302
    assert reply["Location"] == f"/compare/?runs={runs[0].pk},{runs[1].pk}"


def test_too_few_or_too_many_runs_are_not_compared(browser: Client) -> None:
    runs = list(make_experiment(seeds=list(range(101))).runs.order_by("pk"))
    for selection in (runs[:1], runs):
        reply = browser.post(
            RUNS, {"action": "compare", "_selected_action": [run.pk for run in selection]}, follow=True
        )
        assert "Select 2 to 100 runs to compare." in reply.content.decode()


def test_a_worker_can_be_drained_and_taken_back(browser: Client) -> None:
    worker = make_worker()
    act(browser, "/admin/experiments/worker/", "drain", [worker])
    assert Worker.objects.get().draining
    act(browser, "/admin/experiments/worker/", "undrain", [worker])
    assert not Worker.objects.get().draining


def test_the_list_of_runs_costs_the_same_however_long_it_is(browser: Client) -> None:
    counts = []
    for rows in (3, 6):
        make_experiment(seeds=[1, 2, 3])
        with CaptureQueriesContext(connection) as queries:
            listed = browser.get(RUNS).context["cl"].result_count
        assert listed == rows
        counts.append(len(queries))
    assert counts[0] == counts[1]
