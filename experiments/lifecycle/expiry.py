"""What may be done to a run that nobody holds any more: take it back, and seal what has succeeded."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from experiments import store
from experiments.models import Group, Run
from experiments.states import Actor, Reason, State

from .moves import locked, requeue


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


def seal_finished(run_id: int) -> None:
    """Turn everything of a succeeded run into blocks; nobody will write to it again."""
    for group in Group.objects.filter(run_id=run_id, rows__gt=F("sealed")).defer("stats"):
        while _seal_one(run_id, group.pk):
            pass
    keep_digest(run_id)


def keep_digest(run_id: int) -> None:
    """Store the digest of a succeeded run's series, where there is none yet; a later sweep tries again where its
    points cannot be read."""
    mine = Run.objects.filter(pk=run_id, state=State.SUCCEEDED, series_digest="")
    if not mine.exists():
        return
    try:
        found = store.digest(run_id)
    except store.Unreadable:
        return
    mine.update(series_digest=found)


def _seal_one(run_id: int, group_id: int) -> bool:
    with transaction.atomic():
        store.throttle_write()
        run = locked(run_id)
        if run.state != State.SUCCEEDED:
            return False
        return store.seal_next(Group.objects.defer("stats").get(pk=group_id), run.steps, final=True)
