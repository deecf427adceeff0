"""Worker rows: registration, heartbeat, draining, and idle slots."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db.models.functions import Now

from experiments.clock import db_now
from experiments.models import Run, Worker

log = logging.getLogger(__name__)


def idle_slots(pool: str) -> int:
    """Free slots of living workers that take this pool."""
    workers = [worker for worker in Worker.objects.alive().filter(draining=False) if pool in worker.pools]
    busy = Run.objects.held().filter(worker__in=workers).count()
    return max(sum(worker.slots for worker in workers) - busy, 0)


def register_worker(
    name: str, host: str, pid: int, pools: list[str], slots: int, device: str, info: dict[str, Any]
) -> Worker:
    """Record that a worker process started; it replaces an earlier one of the same name."""
    facts = {"host": host, "pid": pid, "pools": pools, "slots": slots, "device": device, "info": info}
    now = db_now()
    worker, _ = Worker.objects.update_or_create(
        name=name, defaults={**facts, "started": now, "last_seen": now, "stopped": None, "draining": False}
    )
    return worker


def beat_worker(name: str, backlog: int = 0) -> Worker:
    """Record a heartbeat; the returned row says whether to drain. Raises Worker.DoesNotExist."""
    Worker.objects.filter(name=name).update(last_seen=Now(), backlog=backlog)
    return Worker.objects.get(name=name)


def drain_worker(name: str, draining: bool, user: AbstractBaseUser) -> Worker:
    """Start or stop draining a worker; its next heartbeat reads it. Raises Worker.DoesNotExist."""
    worker = Worker.objects.get(name=name)
    Worker.objects.filter(pk=worker.pk).update(draining=draining)
    log.info("%s %s worker %s", user.get_username(), "drains" if draining else "ends the draining of", name)
    worker.draining = draining
    return worker


def retire_worker(name: str, pid: int) -> None:
    """Record that the worker process stopped; a newer process of the same name is left alone."""
    Worker.objects.filter(name=name, pid=pid).update(stopped=Now())
