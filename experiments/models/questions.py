"""Questions to checkpoints, answered by inspection workers."""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.db import models

from .definitions import AnyUser
from .run_outputs import Checkpoint
from .runs import Run


class QuestionState(StrEnum):
    """waiting → answering → answered or refused; an open question is refused when its time is up."""

    WAITING = "waiting"
    ANSWERING = "answering"
    ANSWERED = "answered"
    REFUSED = "refused"


OPEN = (QuestionState.WAITING, QuestionState.ANSWERING)


class QuestionQuerySet(models.QuerySet["Question"]):
    def visible_to(self, user: AnyUser) -> QuestionQuerySet:
        """Questions to runs that the user may see."""
        return self.filter(run__in=Run.objects.visible_to(user))


class Question(models.Model):
    """One question and its answer. Written by `experiments.inspection.questions` alone; kept for a day."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="questions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="questions")
    checkpoint = models.ForeignKey(Checkpoint, models.SET_NULL, null=True, related_name="questions")
    step = models.BigIntegerField(help_text="completed steps of the checkpoint")
    request = models.JSONField(help_text="experiments.spec.QuestionSpec")
    state = models.CharField(
        max_length=10, choices=[(state, state) for state in QuestionState], default=QuestionState.WAITING
    )
    answer = models.JSONField(null=True)
    problem = models.TextField(blank=True, help_text="why there is no answer")
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)

    objects = QuestionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            # Deletion of old questions, and the count of a user's open ones.
            models.Index(fields=["created"], name="question_created"),
            models.Index(fields=["user"], name="question_open", condition=models.Q(state__in=OPEN)),
        ]

    def __str__(self) -> str:
        return f"question {self.pk} to run {self.run_id} ({self.state})"
