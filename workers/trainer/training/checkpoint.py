"""A checkpoint is one safetensors file: weights, optimizer, random and further state, so that a resumed run continues
bit for bit. Data order and schedule are functions of (seed, step) and need no state."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from experiments.spec import Spec, content_hash
from experiments.spec.revision import FIRST, REVISION
from workers.protocol import Checkpoint
from workers.trainer.data.digest import Inputs, differences, files_of

WEIGHT, OPTIMIZER, RANDOM, KEPT = "weight/", "optimizer/", "random/", "kept/"


class CheckpointError(ValueError):
    """The file does not belong to this run."""


class Stateful(Protocol):
    """State besides model and optimizer that a later attempt needs."""

    def state(self) -> dict[str, Tensor]:
        """The tensors to save."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""


def save_checkpoint(
    path: Path,
    step: int,
    spec: Spec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stateful: Mapping[str, Stateful] = MappingProxyType({}),
    inputs: Inputs = MappingProxyType({}),
) -> Checkpoint:
    """Written to a .part file, fsynced, renamed: `path` is complete or does not exist. `inputs`: what the task read."""
    tensors = _tensors(model, optimizer) | _kept(stateful)
    facts = {"step": step, "spec": content_hash(spec), "revision": REVISION, "inputs": dict(inputs)}
    facts["device_kind"] = next(model.parameters()).device.type
    data = save(tensors, {"attnservice": json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)
    return Checkpoint(step=step, path=str(path), sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def load_checkpoint(
    path: Path,
    spec: Spec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stateful: Mapping[str, Stateful] = MappingProxyType({}),
    inputs: Inputs = MappingProxyType({}),
) -> int:
    """Restore all state; returns the number of completed steps. Raises CheckpointError where the spec, the revision
    of the training code or the inputs differ from those of the file."""
    facts = facts_of(path)
    check_spec(path, facts, spec)
    check_revision(path, facts)
    check_inputs(facts, inputs)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    model.load_state_dict(under(WEIGHT, tensors))
    restore_optimizer(optimizer, under(OPTIMIZER, tensors))
    restore_random(under(RANDOM, tensors))
    for name, each in stateful.items():
        each.restore(under(f"{KEPT}{name}/", tensors))
    return int(facts["step"])


def facts_of(path: Path) -> dict[str, Any]:
    """`step`, `spec` (its hash), `revision`, `inputs` that the task read, and `device_kind` (cpu or cuda); older files
    lack the last ones."""
    with safe_open(path, framework="pt") as file:
        facts: dict[str, Any] = json.loads((file.metadata() or {}).get("attnservice", "{}"))
    return facts


def check_spec(path: Path, facts: Mapping[str, Any], spec: Spec) -> None:
    """Raises CheckpointError where another spec was trained."""
    if facts.get("spec") != content_hash(spec):
        raise CheckpointError(f"{path.name} was written by a run with another spec")


def check_revision(path: Path, facts: Mapping[str, Any]) -> None:
    """Raises CheckpointError where other training code wrote the file."""
    revision = facts.get("revision", FIRST)
    if revision != REVISION:
        raise CheckpointError(
            f"{path.name} was written at training revision {revision}, and this is revision {REVISION}: the run would "
            "mix two trainings. Retry it from the start, or fork it"
        )


def check_inputs(facts: Mapping[str, Any], inputs: Inputs) -> None:
    """Raises CheckpointError that names each file with other contents. A checkpoint without a record of inputs passes.
    Changed code of a package only gets a notice (inherit.checkpoint_notices): most changes fix something."""
    if changed := differences(files_of(facts.get("inputs", inputs)), files_of(inputs), "this run"):
        raise CheckpointError(f"{'; '.join(changed)}. Restore the earlier files and retry, or submit the run again")


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {WEIGHT + name: value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{OPTIMIZER}{index}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    tensors[RANDOM + "torch"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state()
    return _apart({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights have several names; safetensors takes no tensor twice, so later names get a copy."""
    seen: set[int] = set()
    for name, value in tensors.items():
        if value.data_ptr() in seen and value.numel():
            tensors[name] = value.clone()
        seen.add(value.data_ptr())
    return tensors


def _kept(stateful: Mapping[str, Stateful]) -> dict[str, Tensor]:
    return {
        f"{KEPT}{name}/{key}": value.detach().cpu().contiguous()
        for name, each in stateful.items()
        for key, value in each.state().items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the optimizer's state, which names parameters by position."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def restore_random(tensors: dict[str, Tensor]) -> None:
    """Restore the random state."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(tensors["cuda"])


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one section of a checkpoint, without its prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
