"""Whether training is still finite: checked where a checkpoint is due, without waiting for the device in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.trainer.recording.recorder import NonFinite, Recorder


class Finite:
    """Checks the model's floating-point weights and buffers, except those that start with infinite values (masks), and
    the gradient norms of all steps, recorded or not."""

    def __init__(self, model: nn.Module, device: torch.device, recorder: Recorder) -> None:
        self.model, self.recorder, self._logged = model, recorder, False
        self.names = [name for name, value in _floats(model).items() if bool(value.isfinite().all())]
        self._largest = torch.zeros((), device=device)

    def observe(self, norm: Tensor) -> None:
        """Take a step's gradient norm: one kernel on the device, without a wait. NaN stays."""
        self._largest = torch.maximum(self._largest, norm.to(self._largest.device))

    def gradients(self) -> bool:
        """Whether all norms since the last call were finite. Waits for the device."""
        finite = bool(self._largest.isfinite())
        self._largest = torch.zeros_like(self._largest)
        return finite

    def broken(self, step: int) -> bool:
        """Whether a weight or buffer is no longer finite after this step. Raises NonFinite where that ends the run.
        Waits for the device."""
        if not (names := self._broken()):
            return False
        if self.recorder.fail_on_nan:
            self.recorder.complete(step)
            self.recorder.flush()
            raise NonFinite(step, names)
        if not self._logged:
            self.recorder.log(f"{names} is not finite after step {step}: no further evaluation, probe or checkpoint")
        self._logged = True
        return True

    def _broken(self) -> str:
        """The first name and the number of others; empty where all are finite."""
        values, device = _floats(self.model), self._largest.device
        checks = [values[name].isfinite().all().to(device) for name in self.names]
        results = torch.stack(checks).tolist() if checks else []
        names = [name for name, finite in zip(self.names, results, strict=True) if not finite]
        return f"{names[0]} (and {len(names) - 1} more)" if len(names) > 1 else "".join(names)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
