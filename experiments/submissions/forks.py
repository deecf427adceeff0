"""What a fork may change: everything but what its parent's weights depend on. Pure but for reading checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.models import Run
from experiments.spec import FieldError, Spec, flatten, parse_spec, resolved
from experiments.submissions import estimates
from experiments.submissions.submission import Plan, SubmissionError, plan

# Settings of the model that no weight depends on.
_FREE = ("model.attention.frozen", "model.attention.init", "model.attention.init_std", "model.attention.scale")

_RECHECKED = ("train.steps", "optimizer.warmup_steps", "model.attention")


def step_of(run: Run, wanted: int | None) -> int:
    """The checkpoint to begin at: the wanted one, or the newest. Raises SubmissionError with those there are."""
    steps = list(run.checkpoints.values_list("step", flat=True))
    if not steps:
        raise SubmissionError([FieldError(("step",), f"run {run.pk} has no checkpoint yet")])
    if wanted is not None and wanted not in steps:
        known = ", ".join(str(step) for step in sorted(set(steps)))
        raise SubmissionError(
            [FieldError(("step",), f"run {run.pk} has checkpoints at steps {known}, none at {wanted}")]
        )
    return max(steps) if wanted is None else wanted


def fork_plan(run: Run, step: int, overrides: Mapping[str, Any], name: str = "", priority: int | None = None) -> Plan:
    """The fork as a submission of one run. Raises SubmissionError that names every override it cannot take."""
    submission = {
        "name": name or f"{run.experiment.name}, fork of #{run.pk} at step {step}"[-200:],
        "project": run.project.name,
        "spec": run.spec,
        "overrides": {path: value for path, value in overrides.items() if path != "seed"},
        "seeds": [overrides.get("seed", run.seed)],
        "priority": run.priority if priority is None else priority,
    }
    planned = plan(submission, stored=not any(map(_is_rechecked, overrides)), inherited=True)
    errors = list(_refused(parse_spec(run.spec, stored=True), planned.spec, overrides))
    if planned.spec.train.steps <= step:
        words = f"the fork begins at step {step}: give it more steps than that"
        errors.append(FieldError(("overrides", "train.steps"), words))
    if errors:
        raise SubmissionError(errors)
    return planned


def _is_rechecked(path: str) -> bool:
    """Whether an override touches fields that a spec stored by an older version may hold in contradiction."""
    return any(path == name or path.startswith(f"{name}.") or name.startswith(f"{path}.") for name in _RECHECKED)


def _refused(parent: Spec, spec: Spec, overrides: Mapping[str, Any]) -> list[FieldError]:
    before, after = dict(flatten(resolved(parent))), dict(flatten(resolved(spec)))
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    errors = [FieldError(_at(path, overrides), words) for path in changed if (words := _why_not(path))]
    data = [path for path in changed if path.startswith("data.")]
    if data and not errors and estimates.parameters(parent) != estimates.parameters(spec):
        errors = [FieldError(_at(path, overrides), "changes the size of the model with the data") for path in data]
    return errors


def _why_not(path: str) -> str:
    if path == "task" or path == "data.dataset":
        return "a fork goes on with the same task and data set"
    if path.startswith("model.") and not path.startswith(_FREE):
        return "changes the model: a fork goes on with its parent's weights, so their shapes must stay"
    return ""


def _at(path: str, overrides: Mapping[str, Any]) -> tuple[str, str]:
    """The override that a person wrote for this leaf."""
    above = [name for name in overrides if path == name or path.startswith(f"{name}.")]
    return ("overrides", above[0] if above else path)
