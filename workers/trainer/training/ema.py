"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """After each step, average ← d·average + (1 − d)·weight with d = min(decay, (1 + n) / (10 + n)) after n updates:
    the initial weights lose their influence soon (Polyak & Juditsky 1992; ramp of TensorFlow's
    ExponentialMovingAverage). Without a decay there is no average. A step that fp16 skips is no update."""

    def __init__(self, decay: float | None, parameters: Mapping[str, nn.Parameter]) -> None:
        self.decay, self.updates = decay, 0
        self._skipped: Tensor | None = None  # count, on the device
        self.names, self.weights = list(parameters), list(parameters.values())
        self.averages = [] if decay is None else [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, skipped: Tensor | None = None) -> None:
        """`skipped` is 1 where the step was skipped, else 0; on the device, without a wait."""
        if self.decay is None:
            return
        weights = [weight.detach() for weight in self.weights]
        if skipped is None:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.averages, weights, 1 - decay)
        else:
            self._update_where_taken(weights, skipped)
        self.updates += 1

    def _update_where_taken(self, weights: list[Tensor], skipped: Tensor) -> None:
        self._skipped = torch.zeros_like(skipped) if self._skipped is None else self._skipped
        taken = self.updates - self._skipped
        share = (1 - ((1 + taken) / (10 + taken)).clamp(max=self.decay)) * (1 - skipped)
        steps = torch._foreach_sub(weights, self.averages)
        torch._foreach_mul_(steps, share.to(torch.float32))
        torch._foreach_add_(self.averages, steps)
        self._skipped = self._skipped + skipped

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the model has the averaged weights (its own without a decay); afterwards its own, bit for bit."""
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
        skipped = 0 if self._skipped is None else int(self._skipped)
        return {**weights, "updates": torch.tensor(self.updates - skipped)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self.updates, self._skipped = int(state["updates"].item()), None
            for name, average in zip(self.names, self.averages, strict=True):
                average.copy_(state[f"weight/{name}"])
