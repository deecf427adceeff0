"""In which precision a step computes. Weights, gradients and the optimizer stay in float32; evaluations and probes
compute in it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from experiments.spec import Train

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for the forward pass, and for fp16 a loss scale that keeps small gradients from vanishing: it halves
    and the step is left out where a gradient overflows, and doubles after 2000 steps without one. Norms and clipping
    see gradients without the scale, whether the optimizer moves a parameter or not. `left_out` counts steps that were
    left out by this attempt, on the device."""

    def __init__(
        self,
        spec: Train,
        device: torch.device,
        optimizer: torch.optim.Optimizer,
        still: Sequence[nn.Parameter],
    ) -> None:
        self.device, self.dtype = device, HALVES.get(spec.precision)
        self.optimizer = optimizer
        self.leaves_out = spec.precision == "fp16"  # steps whose gradients overflow
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.leaves_out)
        self.left_out = torch.zeros((), device=device)
        self._still = torch.optim.SGD(still, lr=0.0) if still else None  # never stepped: a handle for `unscale_`

    def cast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self) -> None:
        """Call once when a step's gradients are complete."""
        self.scaler.unscale_(self.optimizer)
        if self._still is not None:
            self.scaler.unscale_(self._still)

    def step(self) -> Tensor | None:
        """Returns 1 where the step was left out and 0 where it was taken, on the device; None where all are taken."""
        self.scaler.step(self.optimizer)
        left_out = self._overflow() if self.leaves_out else None
        if left_out is not None:
            self.left_out = self.left_out + left_out
        self.scaler.update()
        return left_out

    def _overflow(self) -> Tensor:
        """What the scaler found in the gradients of this step."""
        found = self.scaler._per_optimizer_states[id(self.optimizer)]["found_inf_per_device"].values()
        return torch.stack([each.to(self.device) for each in found]).sum().clamp(max=1)

    def state(self) -> dict[str, Tensor]:
        """Empty without a scale."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.scaler.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state:
            counters = {"growth_interval", "_growth_tracker"}
            plain = {name: value.item() for name, value in state.items()}
            self.scaler.load_state_dict({name: int(v) if name in counters else v for name, v in plain.items()})
