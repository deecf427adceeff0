"""What the reconciler does to a run whose holder has fallen silent."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from experiments.models import Run
from experiments.states import Actor, Reason

from .moves import requeue


def expire(run_id: int) -> bool:
    """Take a run from a holder that has fallen silent. False when the lease turned out to be alive."""
    with transaction.atomic():
        run = Run.objects.expired().filter(pk=run_id).first()
        if run is None:
            return False
        # The holder is not asked: bumping the fence is what makes its late writes touch no row.
        moved = Run.objects.expired().filter(pk=run_id, fence=run.fence).update(fence=F("fence") + 1)
        if not moved:
            return False
        run.fence += 1
        message = f"nothing heard from {run.worker.name if run.worker else 'its worker'} within the lease"
        requeue(run, Actor.RECONCILER, Reason.LEASE_EXPIRED, message, message, counts=True)
        return True
