"""The doorbell: a Celery message that says "there is work for this pool". The database alone says which.

Ringing never blocks a request for long and never fails one: the reconciler rings again after a lost message.
"""

from __future__ import annotations

import logging
from functools import partial

from django.db import transaction

from attnservice.celery import app

log = logging.getLogger(__name__)


def ring(pool: str, run_id: int) -> bool:
    """Wake one idle worker of the pool. False if the broker could not be reached."""
    try:
        app.send_task("workers.doorbell", args=[run_id], queue=pool, ignore_result=True, retry=False)
    except Exception as error:  # whatever the broker's client raises: the rows are stored
        log.warning("doorbell for pool %s not delivered (%s); the reconciler will ring again", pool, error)
        return False
    return True


def ring_on_commit(pool: str, run_ids: list[int], at_most: int) -> None:
    """Ring after the surrounding transaction commits, at most as often as the pool has idle slots."""
    for run_id in run_ids[: max(at_most, 1)]:
        transaction.on_commit(partial(ring, pool, run_id), robust=True)
