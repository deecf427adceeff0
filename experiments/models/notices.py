"""What a run's numbers do not cover, as its trainer told it: attention that no instrument saw, parameters that no loss
reaches, data that was left out (`workers.protocol.Notice`). Kept in the attempt's `info`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from . import Attempt


def notices_of(runs: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Of each run the notices of its newest attempt that began to train, each with `kind`, `text` and `items`. One
    query. Runs that nobody trained yet, or an older trainer, are missing."""
    told = Attempt.objects.filter(run__in=runs, info__has_key="notices").order_by("run_id", "-fence")
    newest: dict[int, list[dict[str, Any]]] = {}
    for run, info in told.values_list("run_id", "info"):
        newest.setdefault(run, info["notices"])
    return newest
