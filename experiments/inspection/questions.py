"""Questions to checkpoints: stored here, answered by an inspection worker, which listens to the queue `explore`.

Nothing else writes the rows. A lost message, or an inspection worker that dies, costs one question: it is refused when
its time is up, and the user can send it again.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from attnservice.celery import app
from experiments.models import Checkpoint, Question, QuestionState, Run, Worker
from experiments.models.questions import OPEN
from experiments.spec import QuestionSpec
from experiments.spec.sections.question import EXPLORE

log = logging.getLogger(__name__)
NO_WORKER = (
    "no inspection worker is running. `make run` and docker compose start one; to start one by hand: "
    "`celery -A attnservice.explorer worker -P solo -Q explore`"
)

DRAINING = "the inspection worker is draining. Resume it on the Workers page."


class Unanswerable(Exception):
    """The question cannot be accepted; the message says why."""


class NoInspectionWorker(Exception):
    """No inspection worker takes questions; the message says why."""


class TooManyQuestions(Exception):
    """The user already waits for as many answers as allowed."""


def ask(run: Run, user: AbstractBaseUser, spec: QuestionSpec) -> Question:
    """Store a question and ring. Raises NoInspectionWorker, TooManyQuestions or Unanswerable."""
    if problem := unavailable():
        raise NoInspectionWorker(problem)
    checkpoint = _checkpoint(run, spec.checkpoint)
    with transaction.atomic():
        _forget_old()
        if _overdue(Question.objects.filter(user_id=user.pk), late=False).count() >= settings.ATTN_OPEN_QUESTIONS:
            raise TooManyQuestions(f"you already wait for {settings.ATTN_OPEN_QUESTIONS} answers; wait for one of them")
        question = Question.objects.create(
            run=run,
            user_id=user.pk,
            checkpoint=checkpoint,
            step=checkpoint.step,
            request=spec.model_dump(mode="json", exclude_defaults=True),
        )
        Question.objects.filter(pk=question.pk).update(created=Now())  # database time is what counts
        transaction.on_commit(partial(_ring, question.pk), robust=True)
    return question


def unavailable() -> str:
    """Why no question can be asked; empty if a living inspection worker is not draining."""
    inspection_workers = [worker for worker in Worker.objects.alive() if EXPLORE in worker.pools]
    if not inspection_workers:
        return NO_WORKER
    return DRAINING if all(worker.draining for worker in inspection_workers) else ""


def _checkpoint(run: Run, step: int | None) -> Checkpoint:
    kept = run.checkpoints.filter(step__lte=run.checkpoint_step)
    checkpoint = kept.first() if step is None else kept.filter(step=step).first()
    if checkpoint is not None:
        return checkpoint
    if step is None:
        raise Unanswerable(f"run {run.pk} has no checkpoint yet")
    known = ", ".join(str(each) for each in kept.values_list("step", flat=True)) or "none"
    raise Unanswerable(f"run {run.pk} has no checkpoint at step {step}; it has: {known}")


def _ring(question_id: int) -> None:
    """Send the question's id. If the message is lost, the question is refused when its time is up."""
    try:
        app.send_task(
            "workers.explore",
            args=[question_id],
            queue=EXPLORE,
            expires=settings.ATTN_QUESTION_S,
            ignore_result=True,
            retry=False,
        )
    except Exception as error:  # whatever the broker's client raises
        log.warning("question %s could not be sent: %s", question_id, error)
        refuse(question_id, "the broker could not be reached; send the question again")


def _forget_old() -> None:
    Question.objects.filter(created__lt=Now() - timedelta(hours=settings.ATTN_QUESTION_KEEP_H)).delete()


def _overdue(questions: QuerySet[Question], *, late: bool) -> QuerySet[Question]:
    """Open questions whose time is up (`late`), or is not."""
    limit = Now() - timedelta(seconds=settings.ATTN_QUESTION_S)
    open_questions = questions.filter(state__in=OPEN)
    return open_questions.filter(created__lt=limit) if late else open_questions.filter(created__gte=limit)


def refresh(question_id: int, questions: QuerySet[Question]) -> Question | None:
    """The question, refused if its time is up."""
    words = (
        f"no answer within {settings.ATTN_QUESTION_S} s: the inspection worker may be busy or stopped; "
        "send the question again"
    )
    question = questions.filter(pk=question_id).first()
    if question is None or question.state not in OPEN:
        return question
    late = _overdue(Question.objects.filter(pk=question_id), late=True)
    if late.update(state=QuestionState.REFUSED, problem=words, finished=Now()):
        question.refresh_from_db()
    return question


# --- Called by the inspection worker ----------------------------------------------------------------


def take(question_id: int) -> Question | None:
    """Take a waiting question; None if it was deleted, taken or is too old."""
    waiting = _overdue(Question.objects.filter(pk=question_id, state=QuestionState.WAITING), late=False)
    if not waiting.update(state=QuestionState.ANSWERING, started=Now()):
        return None
    return Question.objects.select_related("run", "checkpoint").get(pk=question_id)


def answer(question_id: int, reply: dict[str, Any]) -> None:
    """Store the answer, unless the question's time is up."""
    _close(question_id, state=QuestionState.ANSWERED, answer=reply)


def refuse(question_id: int, words: str) -> None:
    """Store why there is no answer."""
    _close(question_id, state=QuestionState.REFUSED, problem=words[:2000].replace("\x00", "\ufffd"))


def _close(question_id: int, **fields: Any) -> None:
    Question.objects.filter(pk=question_id, state__in=OPEN).update(finished=Now(), **fields)
