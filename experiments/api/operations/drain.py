"""Drain a worker: it saves its runs, returns them to the queue and takes no new ones until it is undrained."""

from __future__ import annotations

from typing import ClassVar

from django.core.exceptions import PermissionDenied
from django.http import Http404
from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response

from experiments import lifecycle
from experiments.api.http.access import person
from experiments.api.http.base import View, answer
from experiments.api.http.query import MAX_ID, Query
from experiments.models import Worker


class Drained(BaseModel):
    """A worker and its new setting, which it reads at its next heartbeat."""

    id: int
    name: str
    draining: bool


class WorkerDrain(View[Query]):
    """Let a worker return its runs to the queue and take no new ones. Needs the permission to change workers."""

    answers = {"POST": (200, Drained)}
    draining: ClassVar[bool] = True

    def post(self, request: Request, worker_id: int) -> Response:
        user = person(request)
        if not request.user.has_perm("experiments.change_worker"):
            raise PermissionDenied("draining a worker needs the permission to change workers")
        worker = Worker.objects.filter(pk=min(worker_id, MAX_ID)).first()
        if worker is None:
            raise Http404(f"there is no worker {worker_id}")
        drained = lifecycle.drain_worker(worker.name, self.draining, user)
        return answer(Drained(id=drained.pk, name=drained.name, draining=drained.draining))


class WorkerUndrain(WorkerDrain):
    """Let a drained worker take runs again."""

    draining = False
