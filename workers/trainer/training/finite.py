"""Whether a training is still in finite numbers: looked at where a checkpoint is due, without a wait in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.trainer.recording.recorder import NonFinite, Recorder


class Finite:
    """Watches the model's floating-point weights and buffers, except those that begin with an infinite number (masks),
    and the gradient norms of all steps, recorded or not."""

    def __init__(self, model: nn.Module, device: torch.device, recorder: Recorder) -> None:
        self.model, self.recorder, self._told = model, recorder, False
        self.names = [name for name, value in _floats(model).items() if bool(value.isfinite().all())]
        self._largest = torch.zeros((), device=device)

    def see(self, norm: Tensor) -> None:
        """A step's gradient norm. One kernel on the device, which nobody waits for; NaN stays."""
        self._largest = torch.maximum(self._largest, norm.to(self._largest.device))

    def gradients(self) -> bool:
        """Whether every norm seen since the last call was finite. Waits for the device."""
        found = bool(self._largest.isfinite())
        self._largest = torch.zeros_like(self._largest)
        return found

    def broken(self, step: int) -> bool:
        """Whether a weight or buffer is not finite any more after this step. Raises NonFinite where that ends the run.
        Waits for the device."""
        if not (what := self._broken()):
            return False
        if self.recorder.fail_on_nan:
            self.recorder.complete(step)
            self.recorder.flush()
            raise NonFinite(step, what)
        if not self._told:
            self.recorder.log(f"{what} is not finite after step {step}: no evaluation, probe or checkpoint any more")
        self._told = True
        return True

    def _broken(self) -> str:
        """A name, and how many more there are; empty where all is finite."""
        values, device = _floats(self.model), self._largest.device
        finite = [values[name].isfinite().all().to(device) for name in self.names]
        whole = torch.stack(finite).tolist() if finite else []
        names = [name for name, one in zip(self.names, whole, strict=True) if not one]
        return f"{names[0]} (and {len(names) - 1} more)" if len(names) > 1 else "".join(names)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
