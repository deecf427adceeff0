"""Checks a deployment and reports what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

import redis
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection

from experiments.clock import db_now
from experiments.maintenance import alarms
from experiments.maintenance.migrations import migrations
from experiments.models import LeaderLease, Run, Worker
from experiments.states import State

Level = Literal["ok", "warning", "bad"]
SKEW_S = 2.0
LITTLE_SPACE = 2 * 2**30


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    level: Level
    subject: str
    words: str


def examine() -> Iterator[CheckResult]:
    """Run all checks. A check that raises is a finding; without a database most are skipped."""
    database = list(_run("database", _database))
    yield from database
    checks: dict[str, Callable[[], Iterator[CheckResult]]] = {"broker": _broker, "storage": _storage, "disk": _disk}
    if all(finding.level != "bad" for finding in database):
        checks |= {"clock": _clock, "reconciler": _reconciler, "workers": _workers, "queue": _queue}
    for subject, check in checks.items():
        yield from _run(subject, check)
    yield from _settings()


def _run(subject: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    try:
        yield from check()
    except Exception as error:
        words = str(error).strip().split("\n")[0]
        yield CheckResult("bad", subject, f"{type(error).__name__}: {words}")


def _database() -> Iterator[CheckResult]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    yield CheckResult("ok", "database", f"{connection.vendor} answers")
    if unapplied := migrations().unapplied:
        yield CheckResult("bad", "migrations", f"{unapplied} are not applied: run manage.py migrate")
    else:
        yield CheckResult("ok", "migrations", "all applied")


def _clock() -> Iterator[CheckResult]:
    skew = abs((datetime.now(UTC) - db_now()).total_seconds())
    words = f"this machine and the database differ by {skew:.1f} s"
    if skew > SKEW_S:
        yield CheckResult(
            "warning", "clock", f"{words}: leases are not affected, but timestamps on pages will be wrong"
        )
    else:
        yield CheckResult("ok", "clock", words)


def _broker() -> Iterator[CheckResult]:
    url = settings.REDIS_URL.replace("redis+socket://", "unix://")
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        client.ping()
    yield CheckResult("ok", "broker", "Redis answers")


def _storage() -> Iterator[CheckResult]:
    """Write a file, read it back, delete it; in the block storage too, where there is one."""
    for alias, subject in (("default", "storage"), ("blocks", "block storage")):
        if alias not in settings.STORAGES:
            continue
        store = storages[alias]
        name = store.save(f"doctor/{uuid4().hex}", ContentFile(b"doctor"))
        with store.open(name) as file:
            whole = file.read() == b"doctor"
        store.delete(name)
        if whole:
            yield CheckResult("ok", subject, "a file can be written, read and deleted")
        else:
            yield CheckResult("bad", subject, "a file read back differs from what was written")


def _disk() -> Iterator[CheckResult]:
    for setting in ("ATTN_DATA", "ATTN_SCRATCH", "MEDIA_ROOT"):
        folder = Path(getattr(settings, setting))
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        words = f"{free / 2**30:.1f} GiB free under {setting} ({folder})"
        yield CheckResult("warning" if free < LITTLE_SPACE else "ok", "disk", words)


def _reconciler() -> Iterator[CheckResult]:
    lead = LeaderLease.objects.filter(name="reconciler").first()
    if lead is None:
        yield CheckResult(
            "bad",
            "reconciler",
            "none has ever run: start manage.py reconciler, which requeues runs of lost workers",
        )
        return
    age = (db_now() - lead.renewed).total_seconds()
    level: Level = "bad" if age > settings.ATTN_LEASE_S else "ok"
    yield CheckResult(level, "reconciler", f"{lead.owner} renewed its lease {age:.0f} s ago")


def _workers() -> Iterator[CheckResult]:
    alive = list(Worker.objects.alive())
    if not alive:
        yield CheckResult("bad", "workers", f"no heartbeat within {settings.ATTN_LEASE_S} s: no run will start")
    for worker in alive:
        words = f"{worker.name} takes {', '.join(worker.pools)} with {worker.slots} slots"
        held_back = worker.backlog > alarms.BACKLOG
        words += f"; it has {worker.backlog / 2**20:.0f} unsaved MiB: the storage is slow" if held_back else ""
        words += "; it is draining and takes no new runs" if worker.draining else ""
        yield CheckResult("warning" if held_back or worker.draining else "ok", "workers", words)


def _queue() -> Iterator[CheckResult]:
    served = {pool for worker in Worker.objects.alive().filter(draining=False) for pool in worker.pools}
    wanted = set(Run.objects.filter(state=State.QUEUED).order_by().values_list("pool", flat=True).distinct())
    for pool in sorted(wanted - served):
        yield CheckResult("bad", "queue", f"runs wait in pool '{pool}', which no living worker takes")
    for head in alarms.unclaimed():
        if head.idle and head.seconds > settings.ATTN_LEASE_S:
            words = f"pool '{head.pool}' has {head.idle} idle slots, but a run has been ready for {head.seconds:.0f} s"
            yield CheckResult("bad", "queue", words)
    yield CheckResult("ok", "queue", f"{Run.objects.held().count()} runs in progress")


def _settings() -> Iterator[CheckResult]:
    if settings.DEBUG:
        yield CheckResult("warning", "settings", "ATTN_DEBUG is on: errors show code to every visitor")
    if settings.SECRET_KEY.startswith("insecure"):
        yield CheckResult("bad", "settings", "this is the secret key of tests: set ATTN_SECRET_KEY")
    if connection.vendor == "sqlite" and not connection.settings_dict["NAME"]:
        yield CheckResult("bad", "settings", "the database has no name")
    yield CheckResult("ok", "settings", f"lease {settings.ATTN_LEASE_S} s, renewed every {settings.ATTN_BEAT_S} s")
