"""Liveness, readiness and Prometheus metrics; only the first two need no login."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hmac import compare_digest

import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView

from experiments.maintenance.migrations import migrations

from .metrics import exposition

log = logging.getLogger(__name__)


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Liveness: the process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Readiness: database, broker and migrations are in order; 503 names what is not."""
    checks = {name: _passes(name, check) for name, check in CHECKS.items()}
    ready = all(checks.values())
    words = {name: "ok" if passed else "failed" for name, passed in checks.items()}
    return JsonResponse({"status": "ready" if ready else "not ready", **words}, status=200 if ready else 503)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics for staff, or for a scraper that sends `Authorization: Bearer <ATTN_METRICS_TOKEN>`."""
    if not _may_scrape(request):
        return HttpResponse("sign in as staff, or send the bearer token of ATTN_METRICS_TOKEN\n", status=401)
    process: HttpResponse = ExportToDjangoView(request)
    return HttpResponse(process.content + exposition(), content_type=process["Content-Type"])


def _may_scrape(request: HttpRequest) -> bool:
    if request.user.is_active and request.user.is_staff:
        return True
    token: str = getattr(settings, "ATTN_METRICS_TOKEN", "")
    given = request.headers.get("Authorization", "")
    return bool(token) and compare_digest(given.encode(), f"Bearer {token}".encode())


def _passes(name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception:
        log.warning("readiness: %s failed", name, exc_info=True)
        return False
    return True


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _broker() -> None:
    url = settings.REDIS_URL.replace("redis+socket://", "unix://")
    with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
        client.ping()


def _migrations() -> None:
    if unapplied := migrations().unapplied:
        raise RuntimeError(f"{unapplied} migrations are not applied")


CHECKS: dict[str, Callable[[], None]] = {"database": _database, "broker": _broker, "migrations": _migrations}
