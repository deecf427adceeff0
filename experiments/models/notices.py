"""Notices of a trainer about what a run's numbers do not cover: unrecorded attention, parameters that no loss reaches,
data that was left out (`workers.protocol.Notice`). They are stored in the attempt's `info`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from . import Attempt


def notices_of(runs: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """By run, the notices of its newest started attempt, each with `kind`, `text` and `items`. One query. Runs that
    have not started, or ran in an older trainer, are left out."""
    attempts = Attempt.objects.filter(run__in=runs, info__has_key="notices").order_by("run_id", "-fence")
    newest: dict[int, list[dict[str, Any]]] = {}
    for run, info in attempts.values_list("run_id", "info"):
        newest.setdefault(run, info["notices"])
    return newest
