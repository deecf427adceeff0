"""What runs were trained with besides their specs, as pages and REST show it: the parts of the pooling key, the files
that were read, and the code. Of the newest started attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import Attempt, Run

TOLD = ("inputs", "source")  # keys of an attempt's info


def trained_with(runs: Iterable[Run]) -> dict[int, dict[str, Any]]:
    """By run; runs that have not started are left out. One query."""
    known = {run.pk: run for run in runs}
    started = Attempt.objects.filter(run__in=known, started__isnull=False).order_by("run_id", "-fence")
    facts: dict[int, dict[str, Any]] = {}
    for pk, device, inputs, source in started.values_list("run_id", "device", *(f"info__{name}" for name in TOLD)):
        if pk not in facts:
            facts[pk] = _row(known[pk], device, inputs or {}, source or {})
    return facts


def _row(run: Run, device: str, inputs: Mapping[str, str], source: Mapping[str, Any]) -> dict[str, Any]:
    code = {"commit": source.get("commit", ""), "dirty": source.get("dirty"), "lock": source.get("lock", "")}
    return {**run.identity.fields, "device": device, "inputs": dict(inputs), **code}


def shown(told: Mapping[str, Any] | None) -> dict[str, str]:
    """Its lines as pages show them; none for a run that has not started."""
    if told is None:
        return {}
    commit = f"{told['commit'][:12]}{' with changes' if told['dirty'] else ''}"
    lines = {
        "data": told["data_digest"][:12] or "no files",
        **{f"file {name}": sha256[:12] for name, sha256 in sorted(told["inputs"].items())},
        "training revision": "" if told["revision"] is None else str(told["revision"]),
        "torch": told["torch"],
        "kind of device": told["device_kind"],
        "device": told["device"],
        "commit": commit,
        "lock file": told["lock"][:12],
    }
    return {name: value for name, value in lines.items() if value}
