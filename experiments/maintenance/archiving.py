"""Archive exact values of ended runs in the block storage, if one is set, a few blocks per round."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from django.conf import settings
from django.db.models import F, QuerySet

from experiments import store
from experiments.clock import db_now
from experiments.models import Group
from experiments.states import ENDED

log = logging.getLogger(__name__)
SECONDS = 2.0  # of one round: the reconciler renews no lease meanwhile
GROUPS = 200


def sweep(seconds: float = SECONDS) -> int:
    """One round. Returns how many bytes were moved; if not 0, more may be left."""
    if not settings.ATTN_BLOCKS_STORAGE:
        return 0
    until, moved = time.monotonic() + seconds, 0
    for group in due()[:GROUPS]:
        if time.monotonic() >= until:
            break
        size = _archive(group, until)
        if size:
            log.info("group %d of run %s: moved %d bytes to the block storage", group.pk, group.run_id, size)
        moved += size
    return moved


def _archive(group: Group, until: float) -> int:
    moved = 0
    try:
        while time.monotonic() < until:
            size = store.archive_next(group, settings.ATTN_BLOCKS_MIN_KB * 1024)
            if size is None:
                break
            moved += size
    except Exception as error:  # whatever the storage's client raises; blocks moved so far are archived
        log.warning("group %d of run %s could not be archived, will retry: %s", group.pk, group.run_id, error)
    return moved


def due() -> QuerySet[Group]:
    """Groups that have blocks to archive, of runs that ended long enough ago."""
    ended = {"run__state__in": ENDED, "run__finished__lte": db_now() - timedelta(seconds=settings.ATTN_BLOCKS_AFTER_S)}
    return Group.objects.filter(archived__lt=F("sealed"), **ended).defer("stats").order_by("pk")
