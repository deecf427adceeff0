"""A client that speaks the API as one user, and what its tests ask again and again."""

from __future__ import annotations

from typing import Any

import pytest
from knox.models import AuthToken
from rest_framework.test import APIClient

API = "/api/v1"
BODY: dict[str, Any] = {
    "name": "a question",
    "spec": {
        "task": "classify",
        "data": {"dataset": "digits"},
        "optimizer": {"warmup_steps": 2},
        "train": {"steps": 20, "eval_every": 10, "checkpoint_every": 10},
    },
}


def client_of(user: Any | None = None) -> APIClient:
    """Talks with a real token, or anonymously."""
    client = APIClient()
    if user is not None:
        _, token = AuthToken.objects.create(user=user)
        client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


def get(client: APIClient, path: str, **query: Any) -> Any:
    """The JSON of a GET that succeeds."""
    reply = client.get(f"{API}{path}", query)
    assert reply.status_code == 200, reply.content
    return reply.json()


def problem(reply: Any, status: int) -> dict[str, Any]:
    """The problem that an error answers with."""
    assert reply.status_code == status, reply.content
    assert reply["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = reply.json()
    assert found["status"] == status
    assert set(found) == {"type", "title", "status", "detail", "errors"}
    return found


def pointers(reply: Any) -> list[str]:
    """Where a 400 points."""
    return [error["pointer"] for error in problem(reply, 400)["errors"]]


needs_database = [pytest.mark.django_db, pytest.mark.db]
