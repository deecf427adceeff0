"""The one Celery task: somebody rang, so look for work until there is none.

A run is executed inside the task, which returns when nothing is left to claim or the worker drains. The
message was acknowledged before: whatever happens here, only the rows say what becomes of a run.
"""

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

__all__ = ["doorbell", "node"]  # importing `node` connects the worker's life to Celery's signals

log = logging.getLogger(__name__)


@app.task(name="workers.doorbell", ignore_result=True)
def doorbell(run_id: int) -> None:
    """Claim the best run of this worker's pools, execute it, claim again. The id is only for the log."""
    log.debug("the doorbell rang for run %s", run_id)
    while not drain.requested():
        claim = claim_next()
        if claim is None:
            return
        log.info("run %s: claimed with fence %s at step %s", claim.held.run_id, claim.held.fence, claim.start_step)
        supervise(claim)


def claim_next() -> Claim | None:
    """The best queued run, if any. While the database is away there is none; the reconciler rings again."""
    close_old_connections()
    identity = this_worker()
    try:
        return lifecycle.claim(identity.pools, identity.row())
    except Error as error:
        log.warning("nothing claimed: %s", error)
        connection.close()
        return None
