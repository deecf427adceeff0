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


@signals.celeryd_after_setup.connect
def _introduce(sender: str, instance: Any, **_: Any) -> None:
    """In the main process, before the slots are forked: they inherit what is set here."""
    identity = set_identity(sender, sorted(instance.app.amqp.queues.consume_from), instance.concurrency)
    machine.visible_gpus()  # cached; the slots inherit it
    heartbeat.register(identity)


@signals.worker_process_init.connect
def _open_slot(**_: Any) -> None:
    """In a slot's main thread: start its first trainer, which imports torch."""
    app.conf.broker_transport_options = PUBLISHING  # a slot publishes but never consumes
    backlog.report(0)  # a killed slot may have left a number
    spare.prepare()


@signals.worker_process_shutdown.connect
def _close_slot(**_: Any) -> None:
    spare.discard()


@signals.worker_ready.connect
def _begin(**_: Any) -> None:
    """Ring for runs that were queued while no worker listened: those doorbells may be lost."""
    heartbeat.start()
    for pool in this_worker().pools:
        for _slot in range(this_worker().slots):
            ring(pool, 0)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    """Runs in the handler of SIGTERM: sets a flag that every slot reads, and a deadline."""
    drain.begin_shutdown()
    shutdown_deadline.enforce(settings.ATTN_GRACE_S)


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    heartbeat.stop()
