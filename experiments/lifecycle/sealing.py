"""Sealing the series of a run, one block per transaction, so that no other writer waits for long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.db import transaction
from django.db.models import F, QuerySet

from experiments import store
from experiments.models import Group, Run
from experiments.states import State

from .claims import Held
from .moves import row_of

_Lock = Callable[[], Run | None]  # locks the run; None: no longer to be sealed


def seal(held: Held) -> None:
    """Seal the rows that the newest checkpoint of a held run covers."""
    _seal_all(Group.objects.filter(run_id=held.run_id), partial(row_of, held, State.RUNNING, State.STOPPING))


def seal_finished(run_id: int) -> None:
    """Seal all rows of a succeeded run, to which nothing will be added, and store their digest."""
    succeeded = Run.objects.select_for_update().filter(pk=run_id, state=State.SUCCEEDED)
    _seal_all(Group.objects.filter(run_id=run_id, rows__gt=F("sealed")), succeeded.first)
    keep_digest(run_id)


def _seal_all(groups: QuerySet[Group], lock: _Lock) -> None:
    for group in groups.defer("stats"):
        while _seal_one(group.pk, lock):
            pass


def _seal_one(group_id: int, lock: _Lock) -> bool:
    with transaction.atomic():
        store.throttle_write()
        run = lock()
        if run is None:
            return False
        final = run.state == State.SUCCEEDED
        end = run.steps if final else run.checkpoint_step
        return store.seal_next(Group.objects.defer("stats").get(pk=group_id), end, final=final)


def keep_digest(run_id: int) -> None:
    """Store the digest of a succeeded run's series, if it has none. If its points cannot be read, a later sweep tries
    again."""
    undigested = Run.objects.filter(pk=run_id, state=State.SUCCEEDED, series_digest="")
    if not undigested.exists():
        return
    try:
        digest = store.digest(run_id)
    except store.Unreadable:
        return
    undigested.update(series_digest=digest)
