"""Drain a worker: it saves and hands back what it runs, and takes nothing new until it is taken back."""

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
    """A worker and what it was told; its next beat reads it."""

    id: int
    name: str
    draining: bool


class WorkerDrain(View[Query]):
    """Take nothing new, and hand back what runs. Needs the permission to change workers."""

    answers = {"POST": (200, Drained)}
    draining: ClassVar[bool] = True

    def post(self, request: Request, worker_id: int) -> Response:
        user = person(request)
        if not request.user.has_perm("experiments.change_worker"):
            raise PermissionDenied("draining a worker needs the permission to change workers")
        worker = Worker.objects.filter(pk=min(worker_id, MAX_ID)).first()
        if worker is None:
            raise Http404(f"there is no worker {worker_id}")
        told = lifecycle.drain_worker(worker.name, self.draining, user)
        return answer(Drained(id=told.pk, name=told.name, draining=told.draining))


class WorkerUndrain(WorkerDrain):
    """Take work again."""

    draining = False
