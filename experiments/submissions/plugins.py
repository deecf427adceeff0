"""The packages that workers have installed, and whether a submission needs others."""

from __future__ import annotations

from collections.abc import Iterable

from experiments.models import Worker
from experiments.spec import FieldError, resolved
from experiments.spec.sections.plugins import needs

from .submission import Plan, SubmissionError


def check(plan: Plan) -> Plan:
    """The plan, where the workers of its pool, alive or not, have published every package name in it: a run may wait
    for its worker. Raises SubmissionError that names the field and the known names."""
    needed = {need: path for run in plan.runs for need, path in needs(resolved(run.spec)).items()}
    if needed:
        known = published(plan.pool)
        if errors := [FieldError(_written(plan, error), error.message) for error in _missing(needed, known, plan.pool)]:
            raise SubmissionError(errors)
    return plan


def _written(plan: Plan, error: FieldError) -> tuple[str | int, ...]:
    """Where the submission sets it: in the matrix, an override, or the spec."""
    for place, paths in (("matrix", plan.matrix), ("overrides", plan.submission.overrides)):
        for path in paths:
            if f"{error.dotted}.".startswith(f"{path}."):
                return place, path
    return "spec", *error.path


def published(pool: str) -> set[str]:
    """`<group>:<name>` of everything that the pool's workers have published."""
    workers = Worker.objects.order_by().values_list("pools", "info")
    return {need for pools, info in workers if pool in pools for need in info.get("plugins", [])}


def _missing(needed: dict[str, tuple[str, ...]], known: set[str], pool: str) -> Iterable[FieldError]:
    for need, path in needed.items():
        if need not in known:
            group, _, name = need.partition(":")
            others = sorted(own.partition(":")[2] for own in known if own.startswith(f"{group}:"))
            hint = f"known there: {', '.join(others)}" if others else f"none of them has published {group}"
            yield FieldError(path, f"no worker of pool '{pool}' has '{name}'; {hint}")
