"""What workers have published of the packages installed there, and whether a submission asks for more."""

from __future__ import annotations

from collections.abc import Iterable

from experiments.models import Worker
from experiments.spec import FieldError, resolved
from experiments.spec.sections.plugins import needs

from .submission import Plan, SubmissionError


def check(plan: Plan) -> Plan:
    """The plan, where some worker that takes its pool has every package's name in it: alive or not, since a run may
    wait for one. Raises SubmissionError that names the field and what is known."""
    asked = {need: path for run in plan.runs for need, path in needs(resolved(run.spec)).items()}
    if asked:
        known = published(plan.pool)
        if errors := [FieldError(_written(plan, error), error.message) for error in _missing(asked, known, plan.pool)]:
            raise SubmissionError(errors)
    return plan


def _written(plan: Plan, error: FieldError) -> tuple[str | int, ...]:
    """Where the person wrote it: in the matrix, an override, or the spec."""
    for place, paths in (("matrix", plan.matrix), ("overrides", plan.submission.overrides)):
        for path in paths:
            if f"{error.dotted}.".startswith(f"{path}."):
                return place, path
    return "spec", *error.path


def published(pool: str) -> set[str]:
    """`<group>:<name>` of everything that a worker of the pool has."""
    workers = Worker.objects.order_by().values_list("pools", "info")
    return {need for pools, info in workers if pool in pools for need in info.get("plugins", [])}


def _missing(asked: dict[str, tuple[str, ...]], known: set[str], pool: str) -> Iterable[FieldError]:
    for need, path in asked.items():
        if need not in known:
            group, _, name = need.partition(":")
            others = sorted(own.partition(":")[2] for own in known if own.startswith(f"{group}:"))
            there = f"known there: {', '.join(others)}" if others else f"none of them has published {group}"
            yield FieldError(path, f"no worker of pool '{pool}' has '{name}'; {there}")
