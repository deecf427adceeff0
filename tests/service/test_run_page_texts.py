"""What a run's page, the tables of runs and the page of workers say in each state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from experiments import lifecycle
from experiments.models import Project, Run, Worker
from experiments.pages.runs.panels import panels_of

from .api_client import needs_database
from .factories import claim, make_project, make_run, make_user, make_worker, train
from .html_form import flowing

pytestmark = needs_database


@pytest.fixture
def editor() -> Any:
    return make_user()


@pytest.fixture
def project(editor: Any) -> Project:
    return make_project(editor=editor)


@pytest.fixture
def browser(editor: Any) -> Client:
    browser = Client()
    browser.force_login(editor)
    return browser


def text_of(browser: Client, path: str) -> str:
    reply = browser.get(path)
    assert reply.status_code == 200
    return flowing(reply.content.decode())


def test_a_run_cancelled_before_its_first_claim_has_no_worker(browser: Client, project: Project) -> None:
    run = make_run(project)
    assert "queued in" in text_of(browser, f"/runs/{run.pk}/")
    lifecycle.request_cancel(run.pk, None)
    assert "queued in" not in text_of(browser, f"/runs/{run.pk}/")


def test_a_queued_run_is_cancelled_at_once_and_the_page_says_so(browser: Client, project: Project) -> None:
    run = make_run(project)
    assert "is cancelled at once" in text_of(browser, f"/runs/{run.pk}/")
    page = browser.post(f"/runs/{run.pk}/cancel/", follow=True).content.decode()
    assert "Run cancelled." in page
    assert "Cancellation requested." not in page


def test_a_running_run_is_asked_to_stop_and_the_page_says_so(browser: Client, project: Project) -> None:
    run = make_run(project)
    claim(run)
    assert "It saves a checkpoint and stops." in text_of(browser, f"/runs/{run.pk}/")
    page = browser.post(f"/runs/{run.pk}/cancel/", follow=True).content.decode()
    assert "Cancellation requested." in page
    assert "Run cancelled." not in page


def test_a_reason_that_only_repeats_the_state_is_left_out(browser: Client, project: Project) -> None:
    run = make_run(project)
    lifecycle.request_cancel(run.pk, None)
    pages = ("/runs/", f"/experiments/{run.experiment_id}/")
    assert all('<span class="tiny quiet">cancelled</span>' not in text_of(browser, path) for path in pages)
    assert "<b>cancelled</b>" not in text_of(browser, f"/runs/{run.pk}/")
    Run.objects.filter(pk=run.pk).update(state="failed", reason="nan")
    assert all('<span class="tiny quiet">nan</span>' in text_of(browser, path) for path in pages)
    assert "<b>nan</b>" in text_of(browser, f"/runs/{run.pk}/")


def test_the_experiment_page_names_the_last_worker_of_a_run_that_has_ended(browser: Client, project: Project) -> None:
    run = make_run(project)
    held = claim(run).held
    train(held, 0, 20)
    lifecycle.succeed(held)
    assert Run.objects.get().worker is None
    assert '<td class="clip small">host</td>' in text_of(browser, f"/experiments/{run.experiment_id}/")


def test_the_page_of_workers_says_for_how_long_one_is_up(browser: Client) -> None:
    worker = make_worker()
    Worker.objects.filter(pk=worker.pk).update(started=Now() - timedelta(seconds=125))
    assert "up for 2 min, seen" in text_of(browser, "/workers/")


def test_panels_say_what_the_object_is_for_the_kind_of_task() -> None:
    names = ["attn/object_mass/encoder.1.self", "test/accuracy"]
    by_task = {task: {panel.key: panel for panel in panels_of(names, task)} for task in ("segment", "roles", "pointer")}
    assert "prompted object" in by_task["segment"]["mass"].help
    for task in ("roles", "pointer"):
        assert "tokens" in by_task[task]["mass"].help
        assert "image" not in by_task[task]["mass"].help
    assert by_task["roles"]["other-test"].title == "Test set"
