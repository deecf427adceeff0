"""Draining a worker over REST."""

from __future__ import annotations

from django.contrib.auth.models import Permission

from experiments.models import Worker

from .api_client import API, client_of, needs_database
from .factories import make_user, make_worker

pytestmark = needs_database


def test_a_worker_is_drained_and_taken_back_by_those_who_may() -> None:
    worker, user = make_worker(), make_user()
    assert client_of(user).post(f"{API}/workers/{worker.pk}/drain/").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="change_worker"))
    client = client_of(type(user).objects.get(pk=user.pk))
    for call, draining in (("drain", True), ("undrain", False)):
        reply = client.post(f"{API}/workers/{worker.pk}/{call}/")
        assert (reply.status_code, reply.json()["draining"]) == (200, draining)
        assert Worker.objects.get(pk=worker.pk).draining is draining
    assert client.post(f"{API}/workers/999999/drain/").status_code == 404
