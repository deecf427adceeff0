"""Thinning the series of an ended run: recorded first, then sealed, then dropped a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from experiments import store
from experiments.models import Group, Run
from experiments.states import ENDED, Actor

from .moves import event, locked

ROWS = 250  # in one transaction: a trainer's commit waits for no more
_END = 2**62


def thin_group(group_id: int, globs: Sequence[str], level: int, rule: str, budget: int) -> int:
    """Apply a rule to one group of series, up to `budget` rows. Returns how many rows were dropped; the next call does
    the rest. Does nothing unless the run has ended."""
    group = _marked(group_id, globs, level)
    if group is None:
        return 0
    store.take_back(group)
    dropped = 0
    while dropped < budget:
        rows = _drop_some(group_id, rule)
        if rows is None:
            break
        dropped += rows
    return dropped


def _marked(group_id: int, globs: Sequence[str], level: int) -> Group | None:
    """Record what is kept from now on; None unless the run has ended."""
    with transaction.atomic():
        group = _of_ended_run(group_id)
        if group is not None:
            store.thin(group, globs, level)
        return group


def _of_ended_run(group_id: int) -> Group | None:
    group = Group.objects.defer("stats").filter(pk=group_id).first()
    if group is None or group.run_id is None or locked(group.run_id).state not in ENDED:
        return None
    return group


def _drop_some(group_id: int, rule: str) -> int | None:
    """One short transaction. Rows dropped, or None when there is nothing left to do."""
    with transaction.atomic():
        group = _of_ended_run(group_id)
        if group is None:
            return None
        if any(group.thinned) and store.seal_next(group, _END, final=True):
            return 0
        dropped = store.drop_some(group, ROWS)
        if not dropped:
            _done(group, rule)
            return None
        return dropped


def _done(group: Group, rule: str) -> None:
    """Record that the rule was applied, with its result."""
    Group.objects.filter(pk=group.pk).update(thin_done=rule)
    floors = [floor for floor in group.thinned if floor]
    if floors and group.thin_done != rule:
        points = store.points_per_bucket(max(floors))
        series = f"{len(floors)} of {len(group.names)} {group.name} series, {group.rows:,} points each"
        text = f"{series}: of every {points:,} points the first, the minimum, the maximum and the last are kept"
        assert group.run is not None
        event(group.run, Actor.RECONCILER, "thinned", message=text)


def is_thinned(run: Run) -> bool:
    return Group.objects.filter(run=run).exclude(thinned=[]).exists()
