"""Reads points of series from a read replica, if one is set; runs, permissions and all else from the primary.

Only tables of points are read there, and only during GET requests: a replica that lags shows a chart that lags, never a
missing run or a revoked permission. The store checks revisions after every read, so each reply is consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from django.http.response import HttpResponseBase

ALIAS = "replica"
TABLES = frozenset({"group", "frame", "stepindex", "block", "archivedblock"})
_reading: ContextVar[bool] = ContextVar("reading", default=False)


class Reading:
    """Middleware: GET and HEAD requests may read from the replica."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        token = _reading.set(request.method in {"GET", "HEAD"})
        try:
            return self.get_response(request)
        finally:
            _reading.reset(token)


class Router:
    """Django's database router."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        ours = model._meta.app_label == "experiments" and model._meta.model_name in TABLES
        return ALIAS if ours and _reading.get() else None

    def allow_relation(self, *_: Model, **hints: Any) -> bool:
        return True  # the same rows, one a little later

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if db == ALIAS else None
