"""The start of a fork: the weights of another run's checkpoint, and its optimizer state where that fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from experiments.spec import Spec
from experiments.spec.revision import FIRST, REVISION
from workers.protocol import MAX_ITEMS, Notice
from workers.trainer.data.digest import Inputs, differences
from workers.trainer.training.checkpoint import (
    OPTIMIZER,
    RANDOM,
    WEIGHT,
    CheckpointError,
    facts_of,
    restore_optimizer,
    restore_random,
    under,
)


def inherit(
    path: Path, spec: Spec, parent: Spec | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, str]:
    """Load what fits. Returns the parent's completed steps and a sentence on what was loaded. Raises CheckpointError
    where the weights do not fit the spec's model."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    try:
        model.load_state_dict(under(WEIGHT, tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the parent's weights do not fit this model: {error}") from None
    restore_random(under(RANDOM, tensors))
    kept = _keeps_state(spec, parent)
    if kept:
        restore_optimizer(optimizer, under(OPTIMIZER, tensors))
    step = int(facts_of(path)["step"])
    state = "its optimizer state" if kept else "a fresh optimizer, since its state does not fit"
    return step, f"forked at step {step}: the parent's weights and {state}"


def _keeps_state(spec: Spec, parent: Spec | None) -> bool:
    """State belongs to parameters by position: it fits the same optimizer over the same trained matrices."""
    if parent is None:
        return False
    same = (_frozen(spec), spec.optimizer.name) == (_frozen(parent), parent.optimizer.name)
    return same and (spec.optimizer.momentum > 0) == (parent.optimizer.momentum > 0)


def _frozen(spec: Spec) -> object:
    """What determines which matrices are trained."""
    attention = getattr(spec.model, "attention", None)
    return attention and (sorted(attention.frozen), attention.variant, attention.by_kind)


def checkpoint_notices(about: Mapping[str, Any], inputs: Inputs, device_kind: str, forked: bool) -> list[Notice]:
    """Where a checkpoint and this run differ: other files or other training code than a fork's parent, unknown files,
    or another kind of device."""
    return [
        *_code_notices(about, forked),
        *_data_notices(about, inputs, forked),
        *_device_notices(about, device_kind, forked),
    ]


def _device_notices(about: Mapping[str, Any], device_kind: str, forked: bool) -> list[Notice]:
    before = about.get("device_kind", device_kind)
    if before == device_kind:
        return []
    begun = "the fork's parent was trained" if forked else f"the first {about['step']} steps were trained"
    text = f"{begun} on {before} and the rest is on {device_kind}: neither kind of device alone gives these values"
    return [Notice(kind="other_device", text=text)]


def _code_notices(about: Mapping[str, Any], forked: bool) -> list[Notice]:
    revision = about.get("revision", FIRST)
    text = f"the fork's parent was trained at training revision {revision}, and this is revision {REVISION}"
    return [Notice(kind="other_revision", text=text)] if forked and revision != REVISION else []


def _data_notices(about: Mapping[str, Any], inputs: Inputs, forked: bool) -> list[Notice]:
    if "inputs" not in about:
        text = "the checkpoint does not record which files its run read, so they cannot be compared"
        return [Notice(kind="unknown_data", text=text)] if inputs else []
    told = differences(about["inputs"], inputs, "its parent" if forked else "this run")
    begins = "the fork goes on over other data than its parent" if forked else "the run goes on with other code"
    text = f"{begins}: {'; '.join(told[:3])}"
    return [Notice(kind="other_data", text=text, items=told[:MAX_ITEMS])] if told else []
