"""The Inspect tab: when it can be used, and what it says when it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from experiments import lifecycle
from experiments.models import Run

from .api_client import needs_database
from .factories import claim, make_project, make_run, make_user, make_worker, train
from .html_form import flowing

pytestmark = needs_database
ROLES = {"task": "roles", "data": {"dataset": "roles"}, "train": {"steps": 20, "checkpoint_every": 10}}


@pytest.fixture
def browser() -> Client:
    browser = Client()
    browser.user = make_user()  # type: ignore[attr-defined]
    browser.force_login(browser.user)  # type: ignore[attr-defined]
    return browser


def run_of(browser: Any, spec: dict[str, Any] | None = None) -> Run:
    return make_run(make_project(viewer=browser.user), spec=spec or ROLES)


def tab(browser: Client, run: Run) -> str:
    reply = browser.get(f"/runs/{run.pk}/", {"tab": "attention"})
    assert reply.status_code == 200
    return reply.content.decode()


def with_checkpoint(run: Run) -> Run:
    held = claim(run).held
    train(held, 0, 10)
    lifecycle.publish_checkpoint(held, step=10, path="c", sha256="0" * 64, size=1)
    return run


def test_before_the_first_checkpoint_the_tab_says_when_there_is_something_to_inspect(browser: Client) -> None:
    page = tab(browser, run_of(browser))
    assert "The first checkpoint is saved after step 10" in flowing(page)
    assert "data-inspect" not in page


def test_with_a_checkpoint_a_sentence_can_be_typed(browser: Client) -> None:
    run = with_checkpoint(run_of(browser))
    assert "No inspection worker is running" in tab(browser, run)
    make_worker("explore@host", pools=("explore",))
    page = tab(browser, run)
    assert "data-inspect" in page
    assert 'data-text="我 爱 吃 苹果"' in page
    assert "step 10" in page
    assert "No inspection worker is running" not in page


def test_without_an_inspection_worker_the_tab_says_how_to_start_one(browser: Client) -> None:
    assert "celery -A attnservice.explorer" in tab(browser, with_checkpoint(run_of(browser)))


def test_a_draining_inspection_worker_is_not_called_absent(browser: Client) -> None:
    run, worker = with_checkpoint(run_of(browser)), make_worker("explore@host", pools=("explore",))
    lifecycle.drain_worker(worker.name, True, browser.user)  # type: ignore[attr-defined]
    page = tab(browser, run)
    assert page.count("The inspection worker is draining. Resume it on the Workers page.") == 1
    assert "No inspection worker is running" not in page
    make_worker("explore@other", pools=("explore",))
    assert "is draining" not in tab(browser, run)


def test_tasks_without_inspection_are_named_as_such(browser: Client) -> None:
    run = run_of(browser, {"task": "classify", "data": {"dataset": "digits"}})
    assert "This task has no inspection" in tab(browser, run)
