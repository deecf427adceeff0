"""The largest errors of a run's gradient chains: what its last step reports, over all of its probes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.trainer.attention.gradient_chain.chain import FROM_LOSS, chain_names, is_chained

KINDS = ("fp32", "fp32_of_bound", "fp64_probes", "from_loss_fp64")


def kind_of(name: str) -> str | None:
    """Which of KINDS a probe's series belongs to; None where it is no error of a chain."""
    if not name.startswith("chain_error/"):
        return None
    if name == FROM_LOSS:
        return "from_loss_fp64"
    return {"of_bound": "fp32_of_bound", "fp64": "fp64_probes"}.get(name.rpartition("/")[2], "fp32")


def largest(values: Mapping[str, Tensor | float], kind: str) -> float:
    """The largest of one kind; NaN where one is."""
    errors = [float(value) for name, value in values.items() if kind_of(name) == kind]
    return math.nan if any(math.isnan(error) for error in errors) else max(errors, default=0.0)


@dataclass
class MaxChainError:
    """The largest errors of a run's probes so far, by kind; a checkpoint carries them. One that was kept before a kind
    was known says nothing of the probes before it: NaN from then on."""

    errors: dict[str, float]

    @classmethod
    def of(cls, task: object) -> MaxChainError | None:
        """None for a task without a chain."""
        if not is_chained(task):
            return None
        known = {kind_of(name) for name in chain_names(task)}
        return cls({kind: 0.0 for kind in KINDS if kind in known})

    @property
    def names(self) -> list[str]:
        return [f"chain_error/{kind}" for kind in self.errors]

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        for kind, before in self.errors.items():
            found = largest(values, kind)
            self.errors[kind] = math.nan if math.isnan(found) or math.isnan(before) else max(before, found)

    def state(self) -> dict[str, Tensor]:
        return {kind: torch.tensor(error, dtype=torch.float64) for kind, error in self.errors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.errors = {kind: state[kind].item() if kind in state else math.nan for kind in self.errors}

    def finals(self) -> dict[str, float]:
        return dict(zip(self.names, self.errors.values(), strict=True))
