"""What prometheus_client reports of one process, for all web processes together: in its multiprocess mode it reports
none of it. The names are its own and django-prometheus', so that alerts go on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from experiments.maintenance.migrations import migrations


class WebProcesses(Collector):
    """Sums over the server's parent process and its children; counters fall when one of them is replaced."""

    def collect(self) -> Iterator[Metric]:
        parent = psutil.Process(os.getppid())
        family = [parent, *parent.children()]
        memory = [process.memory_info() for process in family]
        cpu = [process.cpu_times() for process in family]
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", sum(m.rss for m in memory))
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory", sum(m.vms for m in memory))
        yield GaugeMetricFamily("process_start_time_seconds", "Start of the server", parent.create_time())
        yield GaugeMetricFamily("process_open_fds", "Open files", sum(process.num_fds() for process in family))
        yield CounterMetricFamily("process_cpu_seconds", "Processor time", sum(c.user + c.system for c in cpu))
        yield from _migrations()


def _migrations() -> Iterator[Metric]:
    for name, count in migrations()._asdict().items():
        gauge = GaugeMetricFamily(f"django_migrations_{name}_total", f"Migrations {name}", labels=["connection"])
        gauge.add_metric(["default"], count)
        yield gauge
