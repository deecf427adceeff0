"""What an operator should be woken for, in figures: for /metrics, the reconciler's log and `doctor`."""

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
BACKLOG = 16 * 2**20  # bytes that a worker may hold back before it is news


@dataclass(frozen=True)
class Unclaimed:
    """The oldest run of a pool that could be claimed and is not."""

    pool: str
    seconds: float
    idle: int  # slots that could take it; 0 and nobody serves the pool, or all are busy


def unclaimed() -> list[Unclaimed]:
    """How long the head of each pool's line has been ready."""
    now = db_now()
    waiting = Run.objects.filter(state=State.QUEUED, desired=Desired.RUN)
    ready = waiting.annotate(ready=Greatest("created", Coalesce(F("next_at"), F("created")))).filter(ready__lte=now)
    rows = ready.order_by().values_list("pool").annotate(since=Min("ready"))
    return [Unclaimed(pool, (now - since).total_seconds(), idle_slots(pool)) for pool, since in rows]


def leases_expired() -> int:
    """Attempts whose worker fell silent, of all runs there are."""
    return Attempt.objects.filter(outcome=Reason.LEASE_EXPIRED).count()


def backlogs() -> dict[str, int]:
    """Bytes that living workers hold back."""
    return dict(Worker.objects.alive().values_list("name", "backlog"))


def tell() -> None:
    """One log line for each alarm that stands."""
    for line in unclaimed():
        if line.idle and line.seconds > settings.ATTN_LEASE_S:
            log.warning("queued but nobody claims: pool %s, %.0f s, %d idle slots", line.pool, line.seconds, line.idle)
    for name, held in backlogs().items():
        if held > BACKLOG:
            log.warning("spool growing: worker %s holds %d bytes back", name, held)
