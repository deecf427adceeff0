"""The service's own Prometheus metrics, counted in the database on request."""

from __future__ import annotations

import os
from collections.abc import Iterator

from django.db.models import Count
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from attnservice.web_server import COUNTS
from experiments.maintenance import alarms
from experiments.models import Run, Worker
from experiments.states import State

from .processes import WebProcesses
from .workers import pool_counts


def exposition() -> bytes:
    """Our metrics in Prometheus' text format; the same for the whole service, whichever process answers."""
    registry = CollectorRegistry()
    registry.register(_Service())
    if COUNTS in os.environ:
        registry.register(WebProcesses())
    return generate_latest(registry)


class _Service(Collector):
    def collect(self) -> Iterator[Metric]:
        yield _by_pool()
        yield _by_state()
        yield _workers()
        yield from _alarms()


def _by_pool() -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("attn_queue_length", "Queued runs, by pool", labels=["pool"])
    lengths = {pool: n for (pool, state), n in pool_counts().items() if state == State.QUEUED}
    served = {pool: 0 for worker in Worker.objects.alive() for pool in worker.pools}
    for pool, length in sorted((served | lengths).items()):
        gauge.add_metric([pool], length)
    return gauge


def _by_state() -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("attn_runs", "Runs by state", labels=["state"])
    counts = dict(Run.objects.order_by().values_list("state").annotate(n=Count("pk")))
    for state in State:
        gauge.add_metric([state], counts.get(state, 0))
    return gauge


def _workers() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "attn_workers_alive", "Workers with a heartbeat within the lease", Worker.objects.alive().count()
    )


def _alarms() -> Iterator[Metric]:
    ready = GaugeMetricFamily("attn_ready_seconds", "How long the first run of each queue has waited", labels=["pool"])
    for queue in alarms.unclaimed():
        ready.add_metric([queue.pool], queue.seconds)
    yield ready
    held = GaugeMetricFamily("attn_worker_backlog_bytes", "Bytes that a worker has not yet written", labels=["worker"])
    for name, size in sorted(alarms.backlogs().items()):
        held.add_metric([name], size)
    yield held
    yield CounterMetricFamily("attn_leases_expired", "Attempts whose lease expired", alarms.leases_expired())
