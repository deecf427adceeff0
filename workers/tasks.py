"""The one Celery task: a doorbell rang, so claim and execute runs until none is left or the worker drains.

The message is acknowledged before that: what becomes of a run depends on its rows alone."""

from __future__ import annotations

import logging

from django.db import Error, close_old_connections, connection

from attnservice.celery import app
from experiments import lifecycle
from experiments.lifecycle import Claim
from workers.supervisor import node
from workers.supervisor.attempt.supervision import supervise
from workers.supervisor.machine import drain
from workers.supervisor.machine.identity import this_worker

__all__ = ["doorbell", "node"]  # importing `node` connects its signal handlers

log = logging.getLogger(__name__)


@app.task(name="workers.doorbell", ignore_result=True)
def doorbell(run_id: int) -> None:
    """Claim the next run of this worker's pools, execute it, claim again. The id is only logged."""
    log.debug("the doorbell rang for run %s", run_id)
    while not drain.requested():
        claim = claim_next()
        if claim is None:
            return
        log.info("run %s: claimed with fence %s at step %s", claim.held.run_id, claim.held.fence, claim.start_step)
        supervise(claim)


def claim_next() -> Claim | None:
    """The next queued run, if any. None while the database is away: the reconciler rings again."""
    close_old_connections()
    identity = this_worker()
    try:
        return lifecycle.claim(identity.pools, identity.row())
    except Error as error:
        log.warning("cannot claim a run: %s", error)
        connection.close()
        return None
