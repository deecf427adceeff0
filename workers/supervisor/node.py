"""The life of a worker process, hung on Celery's signals: registration, heartbeat, drain, shutdown."""

from __future__ import annotations

from typing import Any

from celery import signals
from django.conf import settings

from attnservice.celery import PUBLISHING, app
from experiments.queue.doorbell import ring
from workers.supervisor.machine import backlog, drain, heartbeat, machine, shutdown_deadline
from workers.supervisor.machine.identity import set_identity, this_worker
from workers.supervisor.process import spare

_heartbeat: heartbeat.Heartbeat | None = None


@signals.celeryd_after_setup.connect
def _introduce(sender: str, instance: Any, **_: Any) -> None:
    """Main process, before the slots are forked: what is set here, they inherit."""
    identity = set_identity(sender, sorted(instance.app.amqp.queues.consume_from), instance.concurrency)
    machine.visible_gpus()  # asked once; the slots inherit the answer
    heartbeat.register(identity)


@signals.worker_process_init.connect
def _open_slot(**_: Any) -> None:
    """A slot, in its main thread: its first trainer begins to import torch."""
    app.conf.broker_transport_options = PUBLISHING  # a slot rings but never listens
    backlog.report(0)  # what a slot that was killed had told
    spare.prepare()


@signals.worker_process_shutdown.connect
def _close_slot(**_: Any) -> None:
    spare.discard()


@signals.worker_ready.connect
def _begin(**_: Any) -> None:
    """Ring for what was queued while nobody listened: those doorbells may be lost."""
    global _heartbeat
    _heartbeat = heartbeat.Heartbeat(this_worker())
    _heartbeat.start()
    for pool in this_worker().pools:
        for _slot in range(this_worker().slots):
            ring(pool, 0)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    """Runs in the handler of SIGTERM: it only raises a flag, which every slot looks at, and sets a term."""
    drain.begin_shutdown()
    shutdown_deadline.enforce(settings.ATTN_GRACE_S)


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    if _heartbeat is not None:
        _heartbeat.stop()
        heartbeat.retire(this_worker())
