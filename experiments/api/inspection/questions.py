"""Questions to a checkpoint: POST one, then GET it until it is answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import Http404
from pydantic import BaseModel
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import person, visible_run
from experiments.api.http.base import View, fields_of
from experiments.api.http.query import MAX_ID, Query
from experiments.inspection import questions
from experiments.lifecycle import NotAllowed
from experiments.models import Question
from experiments.spec import QuestionSpec


class QuestionRow(BaseModel):
    """`answer` is set once `state` is `answered`; `problem` says why a question is `refused`."""

    id: int
    run: int
    step: int
    state: Literal["waiting", "answering", "answered", "refused"]
    request: dict[str, Any]
    answer: dict[str, Any] | None
    problem: str
    created: datetime
    started: datetime | None
    finished: datetime | None


class Unavailable(APIException):
    status_code = 503


class Throttled(APIException):
    status_code = 429


class RunQuestions(View[Query]):
    """Send a question to a checkpoint of the run: its output for a sentence, or for a prompt about an image, its
    attention maps, and what changes when queries, keys, values or heads are swapped, ablated or patched. Everyone who
    may see the run may send one. 503 when no inspection worker is running, 409 when the run has no such checkpoint."""

    body = QuestionSpec
    answers = {"POST": (201, QuestionRow)}
    failures = (503,)

    def post(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        question_spec = self.sent_as(QuestionSpec)
        try:
            question = questions.ask(run, person(request), question_spec)
        except questions.NoInspectionWorker as error:
            raise Unavailable(str(error)) from None
        except questions.TooManyQuestions as error:
            raise Throttled(str(error)) from None
        except questions.Unanswerable as error:
            raise NotAllowed(str(error)) from None
        return Response(question_row(question), status=201)


class QuestionDetail(View[Query]):
    """A question with its answer, once there is one. Stored for a day."""

    answers = {"GET": (200, QuestionRow)}

    def get(self, request: Request, question_id: int) -> Response:
        question = questions.refresh(min(question_id, MAX_ID), Question.objects.visible_to(request.user))
        if question is None:
            raise Http404(f"there is no question {question_id}, or you may not see it")
        return Response(question_row(question))


def question_row(question: Question) -> dict[str, Any]:
    """A question as REST shows it."""
    names = ("id", "step", "state", "request", "answer", "problem", "created", "started", "finished")
    return fields_of(question, *names) | {"run": question.run_id}
