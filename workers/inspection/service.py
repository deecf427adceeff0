"""The inspection worker: a Celery worker with one slot (pool `solo`) that answers questions about checkpoints, with one
child that has torch imported. It claims no runs."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from celery import signals
from django.conf import settings
from django.db import Error, close_old_connections, connection

from attnservice.explorer import app
from experiments.inspection import questions
from experiments.models import Question
from experiments.spec.sections.question import EXPLORE
from workers.files import Damaged
from workers.inspection.child import InspectionChild, NoAnswer
from workers.inspection.files import clear_cache, local_copy
from workers.inspection.protocol import QuestionMessage
from workers.supervisor.machine import heartbeat
from workers.supervisor.machine.identity import set_identity

log = logging.getLogger(__name__)
_child: InspectionChild | None = None


@app.task(name="workers.explore", ignore_result=True)
def answer_question(question_id: int) -> None:
    """Answer one question. While the database is away, the question is left to expire."""
    close_old_connections()
    try:
        question = questions.take(question_id)
        if question is not None:
            _settle(question)
    except Error as error:
        log.warning("question %s is left unanswered: %s", question_id, error)
        connection.close()


def _settle(question: Question) -> None:
    try:
        answer = _answer(question)
    except (NoAnswer, Refused) as error:
        questions.refuse(question.pk, str(error))
    except Error:
        raise
    except Exception as error:  # whatever failed: the user waits for an answer
        log.exception("question %s", question.pk)
        questions.refuse(question.pk, f"the inspection worker failed: {error!r}")
    else:
        questions.answer(question.pk, answer)


class Refused(Exception):
    """Why there is no answer."""


def _answer(question: Question) -> dict[str, Any]:
    checkpoint = question.checkpoint
    if checkpoint is None:
        raise Refused("the checkpoint was replaced by a newer one; send the question again")
    try:
        path = local_copy(checkpoint)
    except (Damaged, OSError) as error:
        raise Refused(f"the checkpoint of step {checkpoint.step} cannot be read: {error}") from error
    message = QuestionMessage(
        question=question.pk,
        spec=question.run.spec,
        checkpoint=str(path),
        sha256=checkpoint.sha256,
        ask=question.request,
        most_bytes=settings.ATTN_MAX_ANSWER_BYTES,
    )
    reply = _warm_child().ask(message, settings.ATTN_QUESTION_S)
    if reply.problem:
        raise Refused(reply.problem)
    answer: dict[str, Any] = orjson.loads(reply.answer)
    return answer


def _warm_child() -> InspectionChild:
    """The child, restarted where it has died. Call it from the main thread."""
    global _child
    if _child is None or not _child.alive:
        if _child is not None:
            _child.end()
        _child = InspectionChild()
    return _child


# --- Celery's signals ---


@signals.celeryd_after_setup.connect
def _introduce(sender: str, instance: Any, **_: Any) -> None:
    clear_cache()
    heartbeat.register(set_identity(sender, [EXPLORE], 1))


@signals.worker_ready.connect
def _begin(**_: Any) -> None:
    _warm_child()
    heartbeat.start()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    if _child is not None:
        _child.end()
    heartbeat.stop()
