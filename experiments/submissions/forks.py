"""What a fork may change: everything but the shape of its parent's weights. Pure, except that it reads checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.models import Run
from experiments.spec import FieldError, Spec, flatten, parse_spec, resolved
from experiments.submissions import estimates
from experiments.submissions.blame import same_branch
from experiments.submissions.submission import Plan, SubmissionError, plan

# Settings of the model on which no weight's shape depends.
_FREE = ("model.attention.frozen", "model.attention.init", "model.attention.init_std", "model.attention.scale")

_RECHECKED = ("train.steps", "optimizer.warmup_steps", "model.attention")


def step_of(run: Run, wanted: int | None) -> int:
    """The step of the checkpoint to start from: `wanted`, or the newest. Raises SubmissionError with known steps."""
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
    """The fork as a submission of one run. Raises SubmissionError that names every override that is not allowed."""
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
        text = f"must be greater than {step}, the step at which the fork starts"
        errors.append(FieldError(("overrides", "train.steps"), text))
    if errors:
        raise SubmissionError(errors)
    return planned


def _is_rechecked(path: str) -> bool:
    """Whether an override sets fields in which a spec stored by an older version may contradict itself."""
    return any(same_branch(path, name) for name in _RECHECKED)


def _refused(parent: Spec, spec: Spec, overrides: Mapping[str, Any]) -> list[FieldError]:
    changed = _changed(parent, spec)
    errors = [FieldError(_override_of(path, overrides), text) for path in changed if (text := _why_not(path))]
    if errors or estimates.parameters(parent) == estimates.parameters(spec):
        return errors
    text = "changes the size of the model, which a fork takes from its parent; leave it out"
    return [FieldError(_override_of(path, overrides), text) for path in changed if path.startswith("data.")]


def _changed(parent: Spec, spec: Spec) -> list[str]:
    before, after = dict(flatten(resolved(parent))), dict(flatten(resolved(spec)))
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _why_not(path: str) -> str:
    if path == "task" or path == "data.dataset":
        return "a fork must keep the task and the data set of its parent"
    if path.startswith("model.") and not path.startswith(_FREE):
        return "a fork uses its parent's weights, so the shapes of the model must stay; leave it out"
    return ""


def _override_of(path: str, overrides: Mapping[str, Any]) -> tuple[str, str]:
    """The override that sets this leaf."""
    above = [name for name in overrides if path == name or path.startswith(f"{name}.")]
    return ("overrides", above[0] if above else path)
