"""The loss scale of gradients when a user's own loop records them.

A `GradScaler` multiplies the loss, and so the gradients, and divides them before the optimizer's step: in `unscale_`,
which the loop or the scaler calls, or inside a fused optimizer. Patching these methods gives the scale of any scaler
(of a plain loop, accelerate, the Trainer of transformers), and the steps that were skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState

MAX_WRAPPERS = 8
Step = Callable[..., Any]


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside wrappers of accelerate, DeepSpeed and others, or of a scheduler, which keep it as
    `optimizer`."""
    for _ in range(MAX_WRAPPERS):
        inner = getattr(optimizer, "optimizer", None)
        if hasattr(optimizer, "_optimizer_step_post_hooks") or inner is None:
            break
        optimizer = inner
    return optimizer


@dataclass(frozen=True)
class Listener:
    """`unscaling` is called with every optimizer whose gradients were just unscaled, the scaler and their scale;
    `stepped` after a scaler's step of `optimizer`, taken or skipped."""

    optimizer: Any
    unscaling: Callable[[Any, GradScaler, Tensor], None]
    stepped: Callable[[], None]


class _PatchedScaler:
    """Replaces `unscale_` and `step` of GradScaler while there are listeners."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.unscale_: Step = GradScaler.unscale_
        self.step: Step = GradScaler.step

    def add(self, listener: Listener) -> None:
        if not self.listeners:
            self.unscale_, self.step = GradScaler.unscale_, GradScaler.step
            GradScaler.unscale_, GradScaler.step = _unscale, _step  # type: ignore[method-assign,assignment]
        self.listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        self.listeners.remove(listener)
        if not self.listeners:
            GradScaler.unscale_, GradScaler.step = self.unscale_, self.step  # type: ignore[method-assign]

    def notify(self, scaler: GradScaler, optimizer: Any) -> None:
        scale = scaler._scale if scaler.is_enabled() else None
        if scale is not None:  # None until a loss has been scaled
            for listener in self.listeners:
                listener.unscaling(unwrapped(optimizer), scaler, scale.detach().clone())


_PATCHED = _PatchedScaler()


def listen(listener: Listener) -> Callable[[], None]:
    """Returns a function that removes the listener."""
    _PATCHED.add(listener)
    return lambda: _PATCHED.remove(listener)


def _unscale(scaler: GradScaler, optimizer: Any) -> None:
    _PATCHED.unscale_(scaler, optimizer)
    _PATCHED.notify(scaler, optimizer)


def _step(scaler: GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
    if is_scaled(scaler, optimizer):
        _PATCHED.notify(scaler, optimizer)
    taken = _PATCHED.step(scaler, optimizer, *args, **kwargs)
    inner = unwrapped(optimizer)
    for listener in _PATCHED.listeners if scaler.is_enabled() else []:
        if listener.optimizer is inner:
            listener.stepped()
    return taken


def is_scaled(scaler: Any, optimizer: Any) -> bool:
    """Whether the optimizer's gradients still have the scale; True for a scaler without a record of it."""
    states = getattr(scaler, "_per_optimizer_states", {})
    known = [states[id(each)]["stage"] for each in (optimizer, unwrapped(optimizer)) if id(each) in states]
    return all(stage is OptState.READY for stage in known)
