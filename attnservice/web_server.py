"""Gunicorn's configuration for `make run`, the image and compose: `gunicorn --config python:attnservice.web_server`."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from attnservice.env import whole

COUNTS = "PROMETHEUS_MULTIPROC_DIR"  # where the processes keep their counters, which /metrics adds up

worker_class = "attnservice.web_worker.BufferedWorker"
workers = whole("ATTN_WEB_PROCESSES", 2, least=1)
threads = whole("ATTN_WEB_THREADS", 4, least=1)
control_socket_disable = True


def on_starting(_arbiter: Any) -> None:
    """In the parent, before there are processes: counters start at 0."""
    os.environ[COUNTS] = tempfile.mkdtemp(prefix="attn-metrics-")


def child_exit(_arbiter: Any, worker: Any) -> None:
    """The counts of a process that is gone stay; its current values go."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_arbiter: Any) -> None:
    shutil.rmtree(os.environ[COUNTS], ignore_errors=True)
