"""Deleting runs: their rows at once, their series and files afterwards, a few at a time."""

from __future__ import annotations

import logging

from django.contrib.auth.models import AbstractBaseUser
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Model

from experiments import store
from experiments.models import ArchivedBlock, Artifact, Block, Checkpoint, Frame, Group, PendingDeletion, StepIndex
from experiments.states import ENDED

from .moves import NotAllowed, locked
from .user_actions import name_of

log = logging.getLogger(__name__)
ROWS = 250  # in one transaction: a trainer's commit waits for no more
_BULK: tuple[type[Model], ...] = (Frame, Block, StepIndex)


def delete_run(run_id: int, user: AbstractBaseUser | None) -> None:
    """Delete an ended run permanently; its forks stay. Raises NotAllowed on a run that has not ended."""
    with transaction.atomic():
        run = locked(run_id)
        if run.state not in ENDED:
            raise NotAllowed(f"run {run_id} is {run.state}; only ended runs can be deleted, so cancel it first")
        path_rows = [model.objects.filter(run=run).values_list("path", flat=True) for model in (Checkpoint, Artifact)]
        paths = {path for rows in path_rows for path in rows}
        PendingDeletion.objects.schedule(paths)
        groups = Group.objects.filter(run=run).count()
        run.delete()
    text = "run %d was deleted by %s; %d groups of series and %d files will be removed"
    log.info(text, run_id, name_of(user), groups, len(paths))


def clear_series(budget: int) -> int:
    """Delete series of deleted runs. Returns how many rows were deleted."""
    deleted = 0
    for group_id in Group.objects.filter(run=None).order_by("pk").values_list("pk", flat=True)[:1000]:
        while deleted < budget and (some := _clear_some(group_id)):
            deleted += some
        if deleted >= budget:
            break
    return deleted


def _clear_some(group_id: int) -> int:
    with transaction.atomic():
        if forgotten := store.forget_archived(group_id, limit=ROWS):
            return forgotten
        for model in _BULK:
            rows = model._default_manager.filter(group_id=group_id).order_by("pk")
            if some := list(rows.values_list("pk", flat=True)[:ROWS]):
                return model._default_manager.filter(group_id=group_id, pk__in=some).delete()[0]
        Group.objects.filter(pk=group_id).delete()
        return 0


def clear_files(limit: int) -> int:
    """Remove files that are pending deletion and that no row names. Returns how many were settled."""
    settled = 0
    for file in PendingDeletion.objects.order_by("pk")[:limit]:
        try:
            PendingDeletion.objects.filter(pk=file.pk).update(doomed=True)
            if not _named(file):
                _remove(file)
        except Exception as error:  # whatever the storage's client raises; the next round tries again
            log.warning("surplus file %s could not be removed, will retry: %s", file.path, error)
            continue
        file.delete()
        settled += 1
    return settled


def _named(file: PendingDeletion) -> bool:
    if file.storage != "default":
        return ArchivedBlock.objects.filter(key=file.path).exists()
    return any(model.objects.filter(path=file.path).exists() for model in (Checkpoint, Artifact))


def _remove(file: PendingDeletion) -> None:
    if file.storage == "default":
        default_storage.delete(file.path)
    else:
        store.remove_object(file.path)
