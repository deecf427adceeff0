"""Liveness, readiness and Prometheus."""

from __future__ import annotations

from typing import Any

from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from tests.redis_server import RedisServer

from .api_client import needs_database
from .factories import make_run, make_user, make_worker

pytestmark = needs_database


def test_liveness_asks_nobody(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        reply = Client().get("/healthz")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_readiness_needs_database_broker_and_migrations(redis: RedisServer) -> None:
    reply = Client().get("/readyz")
    assert reply.json() == {"status": "ready", "database": "ok", "broker": "ok", "migrations": "ok"}
    MigrationRecorder.Migration.objects.filter(app="experiments").delete()
    reply = Client().get("/readyz")
    assert reply.status_code == 503
    assert reply.json()["migrations"] == "failed"


def test_readiness_fails_without_a_broker_and_keeps_the_reason_to_itself(settings: Any) -> None:
    settings.REDIS_URL = "redis://:secret@127.0.0.1:1/0"
    reply = Client().get("/readyz")
    assert (reply.status_code, reply.json()["broker"]) == (503, "failed")
    assert b"secret" not in reply.content


def test_metrics_count_runs_pools_and_workers() -> None:
    make_run()
    make_run(pool="gpu")
    make_worker(pools=("cpu", "idle"))
    browser = Client()
    browser.force_login(make_user(is_staff=True))
    lines = browser.get("/metrics").content.decode().splitlines()
    assert {
        'attn_queue_length{pool="cpu"} 1.0',
        'attn_queue_length{pool="gpu"} 1.0',
        'attn_queue_length{pool="idle"} 0.0',
        'attn_runs{state="queued"} 2.0',
        'attn_runs{state="failed"} 0.0',
        "attn_workers_alive 1.0",
    } <= set(lines)
    assert any(line.startswith("django_http_requests") for line in lines)


def test_metrics_are_for_staff_or_for_the_scraper_with_its_token(settings: Any) -> None:
    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", HTTP_AUTHORIZATION="Bearer ").status_code == 401
    browser = Client()
    browser.force_login(make_user())
    assert browser.get("/metrics").status_code == 401
    settings.ATTN_METRICS_TOKEN = "scrape me"
    assert Client().get("/metrics", HTTP_AUTHORIZATION="Bearer scrape me").status_code == 200
    assert Client().get("/metrics", HTTP_AUTHORIZATION="Bearer é").status_code == 401
