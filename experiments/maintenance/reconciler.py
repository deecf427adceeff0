"""The reconciler: expires leases and rings for queued runs. Several may run; the holder of the leader lease acts.

It keeps no state that matters: the next one can repeat whatever it does.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from django.db.models import Count, F, Q

from experiments import lifecycle
from experiments.clock import db_now
from experiments.models import Group, LeaderLease, Run
from experiments.queue.doorbell import ring
from experiments.states import Desired, State

from . import alarms, archiving, retention

log = logging.getLogger(__name__)
LEADER = "reconciler"
SEAL_EVERY_S = 60
RETAIN_EVERY_S = 300
REPORT_EVERY_S = 60


class Reconciler:
    """One candidate for the leader lease. `tick` does one round and returns whether this one acted."""

    def __init__(self, owner: str = "", monotonic: Callable[[], float] = time.monotonic) -> None:
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}"
        self._monotonic = monotonic
        self._expire_after = 0.0  # monotonic; nothing is expired before
        self._seal_after = 0.0
        self._retain_after = 0.0
        self._away_since: float | None = None  # monotonic; the database
        self._report_after = 0.0

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop. While the database is down, try again."""
        while not stop.is_set():
            self.round()
            stop.wait(settings.ATTN_RECONCILE_S)

    def round(self) -> None:
        """A tick that never raises. An outage of the database is one line a minute, and one at its end."""
        try:
            close_old_connections()
            self.tick()
        except (OperationalError, InterfaceError) as error:
            now = self._monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now >= self._report_after:
                self._report_after = now + REPORT_EVERY_S
                reason = str(error).partition("\n")[0]
                log.warning("no database for %.0f s (%s); trying again", now - self._away_since, reason)
        except Exception:
            log.exception("the reconciler's round failed, will retry")
        else:
            if self._away_since is not None:
                log.warning("the database answers again after %.0f s", self._monotonic() - self._away_since)
            self._away_since, self._report_after = None, 0.0

    def tick(self) -> bool:
        """One round: take or renew the leader lease, expire leases of runs, ring for ready runs, then slower tasks."""
        if not self._lead():
            return False
        if self._monotonic() >= self._expire_after:
            expire_leases()
        ring_for_ready()
        if self._monotonic() >= self._seal_after:
            self._seal_after = self._monotonic() + SEAL_EVERY_S
            seal_unsealed()
            digest_undigested(self._monotonic)
            alarms.log_alarms()
        if self._monotonic() >= self._retain_after and not retention.sweep() + archiving.sweep():
            self._retain_after = self._monotonic() + RETAIN_EVERY_S
        return True

    def _lead(self) -> bool:
        """Take or renew the leader lease. After a gap, wait for one lease before expiring any: the database or the
        reconciler was down, so holders could not renew."""
        now = db_now()
        lease = timedelta(seconds=settings.ATTN_LEASE_S)
        with transaction.atomic():
            lead, new = LeaderLease.objects.get_or_create(
                name=LEADER, defaults={"owner": self.owner, "fence": 1, "lease_until": now + lease / 2, "renewed": now}
            )
            if lead.owner != self.owner and lead.lease_until > now:
                return False
            mine = LeaderLease.objects.filter(name=LEADER, owner=lead.owner, fence=lead.fence)
            if not mine.update(owner=self.owner, fence=lead.fence + 1, lease_until=now + lease / 2, renewed=now):
                return False
        if not new and now - lead.renewed > lease / 2:
            gap = (now - lead.renewed).total_seconds()
            log.warning("no reconciler for %.0f s: leases expire %d s later", gap, settings.ATTN_LEASE_S)
            self._expire_after = self._monotonic() + settings.ATTN_LEASE_S
        return True


def expire_leases() -> int:
    """Requeue, fail or cancel every held run whose lease has expired. Returns how many."""
    expired = list(Run.objects.expired().order_by("lease_until").values_list("pk", flat=True)[:1000])
    taken = [run_id for run_id in expired if lifecycle.expire(run_id)]
    for run_id in taken:
        log.warning("lease expired: run %d", run_id)
    return len(taken)


def seal_unsealed(limit: int = 50) -> int:
    """Seal succeeded runs whose worker died before it did. Returns how many."""
    unsealed = Group.objects.filter(rows__gt=F("sealed"), run__state=State.SUCCEEDED)
    runs = list(unsealed.values_list("run_id", flat=True).distinct()[:limit])
    for run_id in runs:
        lifecycle.seal_finished(run_id)
    return len(runs)


def digest_undigested(monotonic: Callable[[], float] = time.monotonic, limit: int = 20) -> int:
    """Digest the newest succeeded runs that have none: of versions before digests, or whose worker died. Stops after a
    second, since leases must be checked. Returns how many."""
    undigested = Run.objects.filter(state=State.SUCCEEDED, series_digest="").order_by("-id")
    began, done = monotonic(), 0
    for run_id in undigested.values_list("pk", flat=True)[:limit]:
        lifecycle.keep_digest(run_id)
        done += 1
        if monotonic() - began > 1:
            break
    return done


def ring_for_ready() -> int:
    """Ring at most once for each idle slot of a pool. Returns how often."""
    waiting = (
        Run.objects.filter(state=State.QUEUED, desired=Desired.RUN)
        .values("pool")
        .annotate(ready=Count("pk", filter=Q(next_at=None) | Q(next_at__lte=db_now())))
    )
    rung = 0
    for row in waiting:
        wanted = min(row["ready"], lifecycle.idle_slots(row["pool"]))
        for run_id in Run.objects.ready(row["pool"]).values_list("pk", flat=True)[:wanted]:
            rung += ring(row["pool"], run_id)
    return rung
