"""Taking back a run whose lease has expired."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from experiments.models import Run
from experiments.states import Actor, Reason

from .moves import requeue


def expire(run_id: int) -> bool:
    """Take a run from a holder that let its lease expire. False if the lease was renewed meanwhile."""
    with transaction.atomic():
        run = Run.objects.expired().filter(pk=run_id).first()
        if run is None:
            return False
        # The holder is not told: the new fence makes its late writes touch no row.
        moved = Run.objects.expired().filter(pk=run_id, fence=run.fence).update(fence=F("fence") + 1)
        if not moved:
            return False
        run.fence += 1
        message = f"no heartbeat from {run.worker.name if run.worker else 'its worker'} within the lease"
        requeue(run, Actor.RECONCILER, Reason.LEASE_EXPIRED, message, message, counts=True)
        return True
