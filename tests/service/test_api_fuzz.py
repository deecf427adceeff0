"""Odd requests, made from the document itself: no answer is a server error or otherwise than documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase
from knox.models import AuthToken
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .api_client import API, needs_database
from .factories import claim, make_project, make_run, make_user, train

pytestmark = needs_database
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BRIEF = hypothesis.settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Requests share the test's transaction, as Django's own test client arranges it."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def token() -> str:
    """A user with one run that has points; ids of small numbers find it."""
    user = make_user()
    run = make_run(make_project(editor=user))
    train(claim(run).held, 0, 10)
    return f"Token {AuthToken.objects.create(user=user)[1]}"


def test_no_read_breaks_whatever_it_is_asked(token: str) -> None:
    headers = {"Authorization": token}
    schema = schemathesis.openapi.from_wsgi(f"{API}/schema/", WSGIHandler(), headers=headers)
    operations: list[Any] = list(schema.include(method="GET").get_all_operations())
    assert len(operations) > 15
    for found in operations:
        _fuzz(found.ok(), headers)


def _fuzz(operation: Any, headers: dict[str, str]) -> None:
    @BRIEF
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    ask()
