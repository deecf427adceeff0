"""The Celery app: the service sends doorbells, workers receive them.

A message says "there is work for this pool" and nothing else; the database says which. So a message is acknowledged
before it is carried out, nothing is prefetched, no result is kept, and losing every message loses no run. Start a
worker with

    celery -A attnservice.celery worker -Q <pool>[,<pool>] -c <slots> -n <pool>@%h \\
        --without-gossip --without-mingle --without-heartbeat

The service never imports `workers`: the task's module is named here, and only a worker loads it.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "attnservice.settings")

from django.conf import settings

# A request that rings must never wait: no retry, and a frozen broker costs a second at most.
PUBLISHING = {"max_retries": 0, "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
# A worker may wait for a busy broker; a dead connection is noticed by the health check.
CONSUMING = {"max_retries": 0, "socket_timeout": 15.0, "socket_connect_timeout": 5.0, "health_check_interval": 25}


def broker_url(url: str) -> str:
    """REDIS_URL as kombu spells it: redis-py's `unix:///path?db=1` is `redis+socket:///path?virtual_host=1` there."""
    if not url.startswith("unix://"):
        return url
    return url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)


CONF: dict[str, Any] = {
    "broker_url": broker_url(settings.REDIS_URL),
    "broker_transport_options": PUBLISHING,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # a worker waits for its broker for ever
    "imports": ("workers.tasks",),
    "task_default_queue": "cpu",
    "task_create_missing_queues": True,  # a pool may have any name
    "task_acks_late": False,  # an unacknowledged message would be delivered again after visibility_timeout
    "task_reject_on_worker_lost": False,
    "task_ignore_result": True,
    "result_backend": None,
    "task_publish_retry": False,
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "enable_utc": True,
    "timezone": "UTC",
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,  # a doorbell must not wait behind a long run while another slot is idle
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_remote_control": False,  # cancel and drain are rows in the database
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_proc_alive_timeout": 30.0,  # a fresh slot on a loaded machine
}
app = Celery("attnservice")
app.conf.update(CONF)


@celeryd_init.connect
def _be_patient_with_the_broker(conf: Any, **_: Any) -> None:
    conf.broker_transport_options = CONSUMING
