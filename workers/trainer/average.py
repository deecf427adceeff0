"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """After each step, average ← d·average + (1 − d)·weight with d = min(decay, (1 + n) / (10 + n)) after n updates,
    so that the start is forgotten soon (Polyak & Juditsky 1992; the ramp is that of TensorFlow's
    ExponentialMovingAverage). Without a decay there is no average, and `shown` shows the weights."""

    def __init__(self, decay: float | None, parameters: Mapping[str, nn.Parameter]) -> None:
        self.decay, self.updates = decay, 0
        self.names, self.weights = list(parameters), list(parameters.values())
        self.averages = [] if decay is None else [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        if self.decay is None:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], 1 - decay)
        self.updates += 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; outside again its own, bit for bit."""
        own = [weight.detach().clone() for weight in self.weights] if self.averages else []
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        if values:
            torch._foreach_copy_([weight.detach() for weight in self.weights], values)

    def state(self) -> dict[str, Tensor]:
        """Empty without a decay."""
        if self.decay is None:
            return {}
        weights = {f"weight/{name}": value for name, value in zip(self.names, self.averages, strict=True)}
        return {**weights, "updates": torch.tensor(self.updates)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self.updates = int(state["updates"].item())
            for name, average in zip(self.names, self.averages, strict=True):
                average.copy_(state[f"weight/{name}"])
