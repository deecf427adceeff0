"""Figures behind alarms: for /metrics, the reconciler's log and `doctor`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F, Min
from django.db.models.functions import Coalesce, Greatest

from experiments.clock import db_now
from experiments.lifecycle import idle_slots
from experiments.models import Attempt, Run, Worker
from experiments.states import Desired, Reason, State

log = logging.getLogger(__name__)
BACKLOG = 16 * 2**20  # unsaved bytes of a worker from which on it is an alarm


@dataclass(frozen=True)
class Unclaimed:
    """How long a pool's oldest claimable run has been ready."""

    pool: str
    seconds: float
    idle: int  # free slots of the pool; 0: no worker serves it, or all are busy


def unclaimed() -> list[Unclaimed]:
    """Of each pool with claimable runs, how long the first has been ready."""
    now = db_now()
    waiting = Run.objects.filter(state=State.QUEUED, desired=Desired.RUN)
    ready = waiting.annotate(ready=Greatest("created", Coalesce(F("next_at"), F("created")))).filter(ready__lte=now)
    rows = ready.order_by().values_list("pool").annotate(since=Min("ready"))
    return [Unclaimed(pool, (now - since).total_seconds(), idle_slots(pool)) for pool, since in rows]


def leases_expired() -> int:
    """Attempts that ended by an expired lease, of all runs."""
    return Attempt.objects.filter(outcome=Reason.LEASE_EXPIRED).count()


def backlogs() -> dict[str, int]:
    """Unsaved bytes of living workers."""
    return dict(Worker.objects.alive().values_list("name", "backlog"))


def log_alarms() -> None:
    """Log one line for each alarm."""
    for head in unclaimed():
        if head.idle and head.seconds > settings.ATTN_LEASE_S:
            log.warning("queued but not claimed: pool %s, %.0f s, %d idle slots", head.pool, head.seconds, head.idle)
    for name, held in backlogs().items():
        if held > BACKLOG:
            log.warning("spool growing: worker %s has %d unsaved bytes", name, held)
