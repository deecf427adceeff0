"""Questions to checkpoints: asked here, answered by whoever listens to the queue `explore`.

Nothing else writes the rows. A message that is lost, or an answerer that dies, costs one question: it is
refused when its time is up, and asking again is cheap.
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
NOBODY = (
    "nobody answers questions now: no explorer is alive. `make run` and docker compose start one; by hand it is "
    "`celery -A attnservice.explorer worker -P solo -Q explore`"
)


class Unanswerable(Exception):
    """The question cannot be taken: the words say why."""


class NobodyAnswers(Exception):
    """No living worker listens to the queue of questions."""


class TooMany(Exception):
    """This person already waits for as many answers as allowed."""


def ask(run: Run, user: AbstractBaseUser, asked: QuestionSpec) -> Question:
    """Store a question and ring. Raises NobodyAnswers, TooMany or Unanswerable."""
    if not explorers():
        raise NobodyAnswers(NOBODY)
    checkpoint = _checkpoint(run, asked.checkpoint)
    with transaction.atomic():
        _forget_old()
        if _overdue(Question.objects.filter(user_id=user.pk), late=False).count() >= settings.ATTN_OPEN_QUESTIONS:
            raise TooMany(f"you wait for {settings.ATTN_OPEN_QUESTIONS} answers already")
        question = Question.objects.create(
            run=run,
            user_id=user.pk,
            checkpoint=checkpoint,
            step=checkpoint.step,
            request=asked.model_dump(mode="json", exclude_defaults=True),
        )
        Question.objects.filter(pk=question.pk).update(created=Now())  # what counts is the database's clock
        transaction.on_commit(partial(_ring, question.pk), robust=True)
    return question


def explorers() -> list[Worker]:
    """Workers that live, listen and take new questions."""
    return [worker for worker in Worker.objects.alive().filter(draining=False) if EXPLORE in worker.pools]


def _checkpoint(run: Run, step: int | None) -> Checkpoint:
    kept = run.checkpoints.filter(step__lte=run.checkpoint_step)
    found = kept.first() if step is None else kept.filter(step=step).first()
    if found is not None:
        return found
    if step is None:
        raise Unanswerable(f"run {run.pk} has no checkpoint yet, so there is nothing to ask")
    known = ", ".join(str(each) for each in kept.values_list("step", flat=True)) or "none"
    raise Unanswerable(f"run {run.pk} keeps no checkpoint of step {step}; it keeps: {known}")


def _ring(question_id: int) -> None:
    """A lost ring costs the question its time: it is refused in words then."""
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
        refuse(question_id, "the broker cannot be reached, so nobody heard the question; ask again")


def _forget_old() -> None:
    Question.objects.filter(created__lt=Now() - timedelta(hours=settings.ATTN_QUESTION_KEEP_H)).delete()


def _overdue(questions: QuerySet[Question], *, late: bool) -> QuerySet[Question]:
    """Open questions whose time is up, or those whose time is not."""
    limit = Now() - timedelta(seconds=settings.ATTN_QUESTION_S)
    still = questions.filter(state__in=OPEN)
    return still.filter(created__lt=limit) if late else still.filter(created__gte=limit)


def look(question_id: int, questions: QuerySet[Question]) -> Question | None:
    """The question, refused if its time is up."""
    words = f"no answer came within {settings.ATTN_QUESTION_S} s; the explorer may be busy or gone: ask again"
    found = questions.filter(pk=question_id).first()
    if found is None or found.state not in OPEN:
        return found
    late = _overdue(Question.objects.filter(pk=question_id), late=True)
    if late.update(state=QuestionState.REFUSED, problem=words, finished=Now()):
        found.refresh_from_db()
    return found


# --- The answering side ---------------------------------------------------------------------------


def take(question_id: int) -> Question | None:
    """Take a waiting question; None when it is gone, taken or too old."""
    waiting = _overdue(Question.objects.filter(pk=question_id, state=QuestionState.WAITING), late=False)
    if not waiting.update(state=QuestionState.ANSWERING, started=Now()):
        return None
    return Question.objects.select_related("run", "checkpoint").get(pk=question_id)


def answer(question_id: int, found: dict[str, Any]) -> None:
    """Store the answer, unless the question's time was up meanwhile."""
    _close(question_id, state=QuestionState.ANSWERED, answer=found)


def refuse(question_id: int, words: str) -> None:
    """There is no answer, and this is why."""
    _close(question_id, state=QuestionState.REFUSED, problem=words[:2000].replace("\x00", "\ufffd"))


def _close(question_id: int, **fields: Any) -> None:
    Question.objects.filter(pk=question_id, state__in=OPEN).update(finished=Now(), **fields)
