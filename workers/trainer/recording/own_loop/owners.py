"""Other optimizers under a GradScaler: which of the gradients that a recording reads still have the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from workers.trainer.recording.norms import total_norm

SCALED, UNSCALED, MIXED = "scaled", "unscaled", "mixed"


class Owner:
    """An optimizer that owns some of a model's parameters, known from the first time that `scaler` unscales them. Its
    gradients have the scale again once a backward pass has begun them anew; where a pass has added to unscaled ones,
    as of a discriminator while the generator trains, they are sums of two scales. A hook on the smallest parameter
    looks at that; it waits for the device where gradients are zeroed and not dropped."""

    def __init__(self, optimizer: Any, scaler: Any, parameters: list[nn.Parameter]) -> None:
        self.optimizer, self.scaler = optimizer, scaler
        self.parameters = frozenset(map(id, parameters))
        self.stage = UNSCALED
        self._witness = min(parameters, key=lambda each: (each.grad is None, each.numel()))
        self._hook = self._witness.register_hook(self._passed) if self._witness.requires_grad else None

    def factor(self) -> Tensor | float:
        """Brings its gradients to their true size; NaN where none does."""
        if self.stage == SCALED:
            return 1 / self.scaler._scale.detach()
        return 1.0 if self.stage == UNSCALED else math.nan

    def close(self) -> None:
        if self._hook is not None:
            self._hook.remove()

    def _passed(self, _gradient: Tensor) -> None:
        """A pass is about to add to the witness's gradient."""
        if self.stage != SCALED:
            before = self._witness.grad
            self.stage = SCALED if before is None or not bool((before != 0).any()) else MIXED


@dataclass
class Reading:
    """Gradients that the recorded optimizer does not own, as a row found them: the norm of each other optimizer's
    together, with its factor, and of the `rest`, which no optimizer was known to unscale."""

    norms: list[Tensor]
    factors: list[tuple[Owner, Tensor | float]]
    rest: Tensor
    rest_is_read: bool  # whether there are any
    scale: Tensor | None  # of losses, where one scaler is known

    @property
    def mixed(self) -> bool:
        return any(isinstance(factor, float) and math.isnan(factor) for _, factor in self.factors)

    @classmethod
    def of_nothing(cls, norm: Tensor) -> Reading:
        return cls([], [], norm, False, None)

    def total(self, own: Tensor, rest: Tensor | float) -> Tensor:
        """The norm of all gradients, with that of the recorded optimizer's and the factor of the rest, in fp64."""
        factors = [rest, *(factor for _, factor in self.factors)]
        for norm, factor in zip([self.rest, *self.norms], factors, strict=False):
            each = norm.to(own.device).double()
            own = torch.hypot(own, torch.where(each == 0, each, each * factor))
        return own

    def unscaled(self, owner: Owner, scale: Tensor) -> None:
        """An optimizer that nobody knew has unscaled its gradients after the row."""
        self.factors.append((owner, 1 / scale))


class Owners:
    """The other optimizers of a model, each under the scaler that was heard to unscale it."""

    def __init__(self, model: nn.Module, own: set[int]) -> None:
        self.model, self.own = model, own
        self.known: list[Owner] = []
        self._scalers: dict[int, Any] = {}

    def heard(self, optimizer: Any, scaler: Any, own: Any) -> Owner | None:
        """The optimizer's gradients have just been unscaled. Gives its owner where it was not known before."""
        if optimizer is own:
            self.named(scaler)
            return None
        for owner in self.known:
            if owner.optimizer is optimizer:
                self.named(scaler)
                owner.scaler, owner.stage = scaler, UNSCALED
                return None
        theirs = {id(each) for group in optimizer.param_groups for each in group["params"]}
        owned = [each for each in self.model.parameters() if id(each) in theirs - self.own]
        if not owned:
            return None
        self.named(scaler)
        self.known.append(Owner(optimizer, scaler, owned))
        return self.known[-1]

    def read(self) -> Reading:
        groups: list[list[Tensor]] = [[] for _ in [*self.known, None]]
        for parameter in self.model.parameters():
            if parameter.grad is not None and id(parameter) not in self.own:
                places = (place for place, owner in enumerate(self.known) if id(parameter) in owner.parameters)
                groups[next(places, -1)].append(parameter.grad.detach())
        *norms, rest = (total_norm(group) for group in groups)
        factors = [(owner, owner.factor()) for owner in self.known]
        return Reading(norms, factors, rest, bool(groups[-1]), self._scale())

    def _scale(self) -> Tensor | None:
        scales = [getattr(scaler, "_scale", None) for scaler in self._scalers.values()]
        return scales[0].detach().clone() if len(scales) == 1 and isinstance(scales[0], Tensor) else None

    def named(self, scaler: Any) -> None:
        self._scalers[id(scaler)] = scaler

    def ambiguous(self, *, is_scaled: bool) -> str:
        """Why nobody knows which scale losses have; empty where it is known. `is_scaled` where a scaler unscales the
        gradients of the recorded optimizer."""
        if len(self._scalers) > 1:
            return "several GradScalers multiply losses"
        return "a GradScaler multiplies losses, and not of this optimizer" if self._scalers and not is_scaled else ""

    def unheard(self) -> str:
        """Why nobody hears whether other optimizers' gradients are unscaled; empty where it is heard."""
        others = [scaler for scaler in self._scalers.values() if not isinstance(scaler, GradScaler)]
        return f"{type(others[0]).__name__} is not torch's scaler" if others else ""

    def close(self) -> None:
        for owner in self.known:
            owner.close()
