"""What every test of the service shares."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from experiments.models import Project

from .api_client import client_of
from .factories import make_project, make_user


@pytest.fixture(autouse=True)
def _plain_static_files(settings: Any) -> None:
    """Names as they stand in the source: nobody has collected and hashed them here."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """A password hash is slow on purpose, 0.4 s each; no test here is about that."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def role() -> str:
    """What the member may do; a module that changes something says another."""
    return "viewer"


@pytest.fixture
def member() -> Any:
    """Who is in `project`, and asks as `api`."""
    return make_user()


@pytest.fixture
def project(member: Any, role: str) -> Project:
    return make_project(**{role: member})


@pytest.fixture
def api(member: Any) -> APIClient:
    """The REST API as the member of `project` sees it."""
    return client_of(member)
