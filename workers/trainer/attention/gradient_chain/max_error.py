"""The largest errors of a run's gradient chains over all of its probes, reported at its last step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.trainer.attention.gradient_chain.chain import FROM_LOSS, chain_names, is_chained

KINDS = ("fp32", "fp32_of_bound", "fp64_probes", "from_loss_fp64")


def kind_of(name: str) -> str | None:
    """Which of KINDS a probe's series belongs to; None for a series that is no chain error."""
    if not name.startswith("chain_error/"):
        return None
    if name == FROM_LOSS:
        return "from_loss_fp64"
    return {"of_bound": "fp32_of_bound", "fp64": "fp64_probes"}.get(name.rpartition("/")[2], "fp32")


def largest(values: Mapping[str, Tensor | float], kind: str) -> float:
    """The largest error of one kind; NaN where any is NaN."""
    errors = [float(value) for name, value in values.items() if kind_of(name) == kind]
    return math.nan if any(math.isnan(error) for error in errors) else max(errors, default=0.0)


@dataclass
class MaxChainError:
    """The largest errors of a run's probes so far, by kind; checkpoints carry them. A checkpoint written before a kind
    existed knows nothing of earlier probes: NaN from then on."""

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
            error = largest(values, kind)
            self.errors[kind] = math.nan if math.isnan(error) or math.isnan(before) else max(before, error)

    def state(self) -> dict[str, Tensor]:
        return {kind: torch.tensor(error, dtype=torch.float64) for kind, error in self.errors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.errors = {kind: state[kind].item() if kind in state else math.nan for kind in self.errors}

    def finals(self) -> dict[str, float]:
        return dict(zip(self.names, self.errors.values(), strict=True))
