"""The precision of training passes. Weights, gradients, the optimizer, evaluations and probes stay in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from experiments.spec import Train

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for the forward pass, and for fp16 a loss scale against vanishing gradients: it halves and the step is
    skipped where a gradient overflows, and doubles after 2000 steps without one. Norms and clipping see unscaled
    gradients, those of untrained parameters too. `skipped` counts this attempt's skipped steps, on the device."""

    def __init__(
        self,
        spec: Train,
        device: torch.device,
        optimizer: torch.optim.Optimizer,
        untrained: Sequence[nn.Parameter],
    ) -> None:
        self.device, self.dtype = device, HALVES.get(spec.precision)
        self.optimizer = optimizer
        self.skips_overflows = spec.precision == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.skips_overflows)
        self.skipped = torch.zeros((), device=device)
        self._untrained = (
            torch.optim.SGD(untrained, lr=0.0) if untrained else None
        )  # never stepped: a handle for `unscale_`

    def cast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self) -> None:
        """Call once when the gradients of a step are complete."""
        self.scaler.unscale_(self.optimizer)
        if self._untrained is not None:
            self.scaler.unscale_(self._untrained)

    def step(self) -> Tensor | None:
        """Returns 1 where the step was skipped, else 0, on the device; None where no step can be."""
        self.scaler.step(self.optimizer)
        skipped = self._overflow() if self.skips_overflows else None
        if skipped is not None:
            self.skipped = self.skipped + skipped
        self.scaler.update()
        return skipped

    def _overflow(self) -> Tensor:
        """1 where the scaler found an overflow in this step's gradients."""
        overflows = self.scaler._per_optimizer_states[id(self.optimizer)]["found_inf_per_device"].values()
        return torch.stack([overflow.to(self.device) for overflow in overflows]).sum().clamp(max=1)

    def state(self) -> dict[str, Tensor]:
        """Empty without a scale."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.scaler.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            counters = {"growth_interval", "_growth_tracker"}
            plain = {name: value.item() for name, value in state.items()}
            self.scaler.load_state_dict({name: int(v) if name in counters else v for name, v in plain.items()})
