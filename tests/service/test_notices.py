"""What a run's numbers do not cover is told where they are read: on its page, in REST."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from experiments import lifecycle
from experiments.models import Run
from tests.service.api_client import client_of, get, needs_database
from tests.service.factories import make_project, make_run, make_user, make_worker
from tests.service.html_form import flowing

pytestmark = needs_database
UNSEEN = {"kind": "unseen_attention", "text": "2 of 14 attention calls are not recorded", "items": ["mixer.0", "<b>"]}
PLAIN = {"kind": "left_out", "text": "3 images were left out", "items": []}


def started(run: Run, *notices: dict[str, Any]) -> None:
    """An attempt that told these notices, as a trainer's Started brings them."""
    taken = lifecycle.claim([run.pool], make_worker())
    assert taken is not None
    lifecycle.start(taken.held, pid=1, device="cpu", info={"notices": list(notices)})


@pytest.fixture
def user() -> Any:
    return make_user()


@pytest.fixture
def run(user: Any) -> Run:
    return make_run(make_project(editor=user))


def test_rest_gives_the_notices_of_a_run(run: Run, user: Any) -> None:
    assert get(client_of(user), f"/runs/{run.pk}/")["notices"] == []
    started(run, UNSEEN, PLAIN)
    assert get(client_of(user), f"/runs/{run.pk}/")["notices"] == [UNSEEN, PLAIN]
    (row,) = get(client_of(user), "/runs/", fields="notices")["results"]
    assert row["notices"] == [UNSEEN, PLAIN]
    assert "notices" not in get(client_of(user), "/runs/")["results"][0]


def test_the_newest_attempt_that_trained_is_the_one_that_counts(run: Run, user: Any) -> None:
    started(run, UNSEEN)
    Run.objects.filter(pk=run.pk).update(state="queued")
    started(run, PLAIN)
    Run.objects.filter(pk=run.pk).update(state="queued")
    lifecycle.claim([run.pool], make_worker())  # it has not told anything yet
    assert get(client_of(user), f"/runs/{run.pk}/")["notices"] == [PLAIN]


def test_the_run_page_shows_a_banner_with_its_list(run: Run, user: Any) -> None:
    started(run, UNSEEN, PLAIN)
    browser = Client()
    browser.force_login(user)
    for address in (f"/runs/{run.pk}/", f"/runs/{run.pk}/?tab=config", f"/runs/{run.pk}/live/"):
        text = flowing(browser.get(address).content.decode())
        assert f"<summary>{UNSEEN['text']}</summary>" in text
        assert "<li>mixer.0</li> <li>&lt;b&gt;</li>" in text
        assert PLAIN["text"] in text


def test_rows_of_many_runs_ask_for_notices_once(user: Any, django_assert_max_num_queries: Any) -> None:
    client: APIClient = client_of(user)
    project = make_project(editor=user)
    for _ in range(3):
        started(make_run(project), PLAIN)
    with django_assert_max_num_queries(8):
        rows = get(client, "/runs/", fields="notices")["results"]
    assert [row["notices"] for row in rows] == [[PLAIN]] * 3
