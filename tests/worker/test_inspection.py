"""A real inspection worker: it answers from a stored checkpoint, outlives its child, and retires."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from experiments import lifecycle
from experiments.inspection import questions
from experiments.models import Question, QuestionState, Run, Worker
from experiments.spec import QuestionSpec, resolved
from tests.redis_server import RedisServer
from tests.service.factories import claim, make_run, make_user, train
from tests.worker import processes

pytestmark = [pytest.mark.redis, pytest.mark.db, pytest.mark.timeout(120)]
ASK = QuestionSpec(text="我 爱 吃 苹果")


@pytest.fixture(scope="module")
def inspector(django_db_setup: None, redis_server: RedisServer) -> Iterator[processes.Process]:
    options = ["-P", "solo", "-Q", "explore", "-n", "explore@test", "-l", "INFO"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["celery", "-A", "attnservice.explorer", "worker", *options, *quiet]
    process = processes.Process("inspector", command, {"ATTN_QUESTION_S": "60"})
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture
def run(inspector: processes.Process, transactional_db: None, redis: RedisServer, tmp_path: Path, settings: Any) -> Run:
    """A run whose checkpoint lies in the storage; the inspection worker is alive."""
    from tests.lab.collected import tiny, train_collected
    from workers.protocol import Checkpoint

    settings.ATTN_QUESTION_S = 60
    spec = tiny("roles", train={"steps": 3}, resources={"pool": "nobody"})  # no worker of another test claims it
    saved = train_collected(spec, tmp_path)[0].of(Checkpoint)[-1]
    run = make_run(spec=resolved(spec))
    held = claim(run).held
    train(held, 0, 3)
    name = default_storage.save(f"runs/{run.pk}/c", ContentFile(Path(saved.path).read_bytes()))
    lifecycle.publish_checkpoint(held, step=3, path=name, sha256=saved.sha256, size=saved.size)
    processes.wait_for(lambda: Worker.objects.alive().filter(name="explore@test").exists(), 30, inspector.log())
    run.refresh_from_db()
    return run


def answered(run: Run) -> Question:
    asked = questions.ask(run, make_user(), ASK)
    open_states = (QuestionState.WAITING, QuestionState.ANSWERING)
    processes.wait_for(lambda: questions.refresh(asked.pk, Question.objects.all()).state not in open_states, 60)  # type: ignore[union-attr]
    return Question.objects.get(pk=asked.pk)


def test_an_inspection_worker_answers_outlives_its_child_and_names_what_is_wrong_with_a_checkpoint(
    run: Run, inspector: processes.Process
) -> None:
    first = answered(run)
    assert first.state == QuestionState.ANSWERED, first.problem
    assert first.answer is not None
    assert first.answer["tokens"] == ["我", "爱", "吃", "苹果"]

    [child] = [each for each in inspector.family() if "answer" in each.cmdline()]
    child.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], 10)
    second = answered(run)
    assert second.answer == first.answer, second.problem

    run.checkpoints.update(path="nowhere", sha256="0" * 64)
    assert "cannot be read" in answered(run).problem

    child = next(each for each in inspector.family() if "answer" in each.cmdline())
    assert inspector.stop() == 0
    assert not processes.is_alive(child.pid)
    assert not Worker.objects.alive().filter(name="explore@test").exists()
