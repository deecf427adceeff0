"""The Celery app of inspection workers, which answer questions to checkpoints; the service never loads it.

A separate app: its workers take no runs, keep no spare trainer, and know one task. The module and its queue keep their
first names, `explorer` and `explore`, because the command lines of deployments contain them. Start a worker with

    celery -A attnservice.explorer worker -P solo -Q explore -n explore@%h \\
        --without-gossip --without-mingle --without-heartbeat
"""

from __future__ import annotations

from celery import Celery

from attnservice.celery import CONF

app = Celery("attnservice-explorer")
app.conf.update(CONF | {"imports": ("workers.inspection.service",), "task_default_queue": "explore"})
