"""Other optimizers under a GradScaler: which recorded gradients still have the loss scale."""

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
    """An optimizer of some of a model's parameters, known since `scaler` first unscaled them. Its gradients are scaled
    again after a backward pass that starts from zero; a pass that adds to unscaled ones, as for a discriminator while
    the generator trains, mixes two scales. A hook on the smallest parameter detects this; it synchronizes with the
    device where gradients are zeroed and not dropped."""

    def __init__(self, optimizer: Any, scaler: Any, parameters: list[nn.Parameter]) -> None:
        self.optimizer, self.scaler = optimizer, scaler
        self.parameters = frozenset(map(id, parameters))
        self.stage = UNSCALED
        self._witness = min(parameters, key=lambda each: (each.grad is None, each.numel()))
        self._hook = self._witness.register_hook(self._passed) if self._witness.requires_grad else None

    def factor(self) -> Tensor | float:
        """The factor that unscales its gradients; NaN where scales are mixed."""
        if self.stage == SCALED:
            return 1 / self.scaler._scale.detach()
        return 1.0 if self.stage == UNSCALED else math.nan

    def close(self) -> None:
        if self._hook is not None:
            self._hook.remove()

    def _passed(self, _gradient: Tensor) -> None:
        """Called before a backward pass adds to the witness's gradient."""
        if self.stage != SCALED:
            before = self._witness.grad
            self.stage = SCALED if before is None or not bool((before != 0).any()) else MIXED


@dataclass
class OtherGradients:
    """Norms of gradients that the recorded optimizer does not own: per other optimizer, with its factor, and of the
    `rest`, which no known optimizer unscales."""

    norms: list[Tensor]
    factors: list[tuple[Owner, Tensor | float]]
    rest: Tensor
    has_rest: bool
    scale: Tensor | None  # of losses, where one scaler is known

    @property
    def mixed(self) -> bool:
        return any(isinstance(factor, float) and math.isnan(factor) for _, factor in self.factors)

    @classmethod
    def of_nothing(cls, norm: Tensor) -> OtherGradients:
        return cls([], [], norm, False, None)

    def total(self, own: Tensor, rest: Tensor | float) -> Tensor:
        """The norm of all gradients in fp64; `own` is that of the recorded optimizer's, `rest` a factor."""
        factors = [rest, *(factor for _, factor in self.factors)]
        for norm, factor in zip([self.rest, *self.norms], factors, strict=False):
            each = norm.to(own.device).double()
            own = torch.hypot(own, torch.where(each == 0, each, each * factor))
        return own

    def unscaled(self, owner: Owner, scale: Tensor) -> None:
        """An optimizer unknown until now has unscaled its gradients after the row."""
        self.factors.append((owner, 1 / scale))


class Owners:
    """The other optimizers of a model, each with the scaler that unscales it."""

    def __init__(self, model: nn.Module, own: set[int]) -> None:
        self.model, self.own = model, own
        self.known: list[Owner] = []
        self._scalers: dict[int, Any] = {}

    def unscaled(self, optimizer: Any, scaler: Any, own: Any) -> Owner | None:
        """Record that the optimizer's gradients were just unscaled. Returns its owner if it is new."""
        if optimizer is own:
            self.add_scaler(scaler)
            return None
        for owner in self.known:
            if owner.optimizer is optimizer:
                self.add_scaler(scaler)
                owner.scaler, owner.stage = scaler, UNSCALED
                return None
        theirs = {id(each) for group in optimizer.param_groups for each in group["params"]}
        owned = [each for each in self.model.parameters() if id(each) in theirs - self.own]
        if not owned:
            return None
        self.add_scaler(scaler)
        self.known.append(Owner(optimizer, scaler, owned))
        return self.known[-1]

    def read(self) -> OtherGradients:
        groups: list[list[Tensor]] = [[] for _ in [*self.known, None]]
        for parameter in self.model.parameters():
            if parameter.grad is not None and id(parameter) not in self.own:
                places = (place for place, owner in enumerate(self.known) if id(parameter) in owner.parameters)
                groups[next(places, -1)].append(parameter.grad.detach())
        *norms, rest = (total_norm(group) for group in groups)
        factors = [(owner, owner.factor()) for owner in self.known]
        return OtherGradients(norms, factors, rest, bool(groups[-1]), self._scale())

    def _scale(self) -> Tensor | None:
        scales = [getattr(scaler, "_scale", None) for scaler in self._scalers.values()]
        return scales[0].detach().clone() if len(scales) == 1 and isinstance(scales[0], Tensor) else None

    def add_scaler(self, scaler: Any) -> None:
        self._scalers[id(scaler)] = scaler

    def ambiguous(self, *, is_scaled: bool) -> str:
        """Why the scale of losses is unknown; empty where it is known. `is_scaled`: a scaler unscales the gradients of
        the recorded optimizer."""
        if len(self._scalers) > 1:
            return "several GradScalers scale losses"
        return "a GradScaler scales losses, but not those of this optimizer" if self._scalers and not is_scaled else ""

    def undetected(self) -> str:
        """Why the unscaling of other optimizers' gradients cannot be detected; empty where it can."""
        others = [scaler for scaler in self._scalers.values() if not isinstance(scaler, GradScaler)]
        return f"{type(others[0]).__name__} is not torch's scaler" if others else ""

    def close(self) -> None:
        for owner in self.known:
            owner.close()
