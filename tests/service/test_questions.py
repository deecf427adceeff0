"""Questions to checkpoints: who may ask, what is refused at once, and that no question waits for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from rest_framework.test import APIClient

from experiments import lifecycle
from experiments.inspection import questions
from experiments.models import Question, Run
from experiments.spec import SpecError, parse_spec

from .api_client import API, client_of, get, needs_database, pointers, problem
from .factories import SPEC, claim, make_project, make_run, make_user, make_worker, train

pytestmark = needs_database
ASK = {"text": "我 爱 吃 苹果"}


@pytest.fixture
def user() -> Any:
    return make_user()


@pytest.fixture
def client(user: Any) -> APIClient:
    return client_of(user)


@pytest.fixture
def run(user: Any) -> Run:
    """A run with one checkpoint, in a project that the user may see; an inspection worker is running."""
    run = make_run(make_project(viewer=user))
    held = claim(run).held
    train(held, 0, 10)
    lifecycle.publish_checkpoint(held, step=10, path="c", sha256="0" * 64, size=1)
    make_worker("explore@host", pools=("explore",))
    return run


def ask(client: APIClient, run: Run, **asked: Any) -> Any:
    return client.post(f"{API}/runs/{run.pk}/questions/", asked or ASK)


def test_a_question_waits_until_it_is_taken_and_answered(client: APIClient, run: Run) -> None:
    reply = ask(client, run)
    assert reply.status_code == 201, reply.content
    asked = reply.json()
    assert (asked["state"], asked["step"], asked["request"]) == ("waiting", 10, ASK)
    assert questions.take(asked["id"]) is not None
    assert questions.take(asked["id"]) is None, "taken twice"
    questions.answer(asked["id"], {"tokens": ["我"]})
    answer = get(client, f"/questions/{asked['id']}/")
    assert (answer["state"], answer["answer"]) == ("answered", {"tokens": ["我"]})


def test_without_an_inspection_worker_a_question_is_refused_at_once(client: APIClient, run: Run) -> None:
    lifecycle.retire_worker("explore@host", 1)
    assert "no inspection worker is running" in problem(ask(client, run), 503)["detail"]
    assert not Question.objects.exists()


def test_a_run_without_a_checkpoint_cannot_be_asked(client: APIClient, run: Run) -> None:
    bare = make_run(run.project)
    assert "no checkpoint yet" in problem(ask(client, bare), 409)["detail"]
    assert "it has: 10" in problem(ask(client, run, checkpoint=7), 409)["detail"]


def test_questions_to_runs_of_others_are_not_found(client: APIClient, run: Run) -> None:
    stranger = client_of(make_user())
    asked = ask(client, run).json()["id"]
    problem(ask(stranger, run), 404)
    problem(stranger.get(f"{API}/questions/{asked}/"), 404)


def test_every_bad_field_of_a_question_is_named(client: APIClient, run: Run) -> None:
    assert pointers(ask(client, run, text="x" * 401, sentence="?")) == ["/text", "/sentence"]
    swap = {"kind": "swap", "what": "q", "places": [1, 1]}
    assert pointers(ask(client, run, text="x", edits=[swap])) == ["/edits/0"]
    assert pointers(ask(client, run, text="x", edits=[{"kind": "patch", "what": "v"}])) == [""]


def test_one_person_waits_for_a_bounded_number_of_answers(client: APIClient, run: Run, settings: Any) -> None:
    settings.ATTN_OPEN_QUESTIONS = 2
    assert [ask(client, run).status_code for _ in range(3)] == [201, 201, 429]
    questions.refuse(Question.objects.latest("pk").pk, "enough")
    assert ask(client, run).status_code == 201


def test_a_question_whose_time_is_up_is_refused_and_a_late_answer_changes_nothing(client: APIClient, run: Run) -> None:
    asked = ask(client, run).json()["id"]
    Question.objects.update(created=Now() - timedelta(seconds=31))
    answer = get(client, f"/questions/{asked}/")
    assert answer["state"] == "refused"
    assert "no answer within 30 s" in answer["problem"]
    questions.answer(asked, {"tokens": []})
    assert get(client, f"/questions/{asked}/") == answer
    assert questions.take(asked) is None


def test_questions_are_forgotten_after_a_day(client: APIClient, run: Run) -> None:
    old = ask(client, run).json()["id"]
    Question.objects.update(created=Now() - timedelta(hours=25))
    new = ask(client, run).json()["id"]
    assert list(Question.objects.values_list("pk", flat=True)) == [new]
    problem(client.get(f"{API}/questions/{old}/"), 404)


def test_no_run_may_wait_in_the_queue_of_questions() -> None:
    with pytest.raises(SpecError, match="takes no runs"):
        parse_spec({**SPEC, "resources": {"pool": "explore"}})
