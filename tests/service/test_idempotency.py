"""One key, several bodies at once: one experiment is stored, and only who sent its body hears 201."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from experiments.models import Experiment

from .api_client import API, BODY, client_of
from .factories import make_project, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


def test_bodies_that_meet_under_one_key_make_one_experiment_and_conflicts() -> None:
    user = make_user()
    make_project(editor=user)
    notes = ["a", "a", "b", "c"]
    clients = [client_of(user) for _ in notes]
    together, replies = threading.Barrier(len(notes)), {}

    def post(at: int) -> None:
        together.wait()
        reply = clients[at].post(f"{API}/experiments/", {**BODY, "notes": notes[at]}, HTTP_IDEMPOTENCY_KEY="k")
        replies[at] = reply.status_code
        connection.close()

    threads = [threading.Thread(target=post, args=(at,)) for at in range(len(notes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = Experiment.objects.get().notes
    assert [replies[at] for at in range(len(notes))] == [201 if note == kept else 409 for note in notes]
