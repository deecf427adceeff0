"""By how much gradients are still multiplied when a loop of one's own hands them over.

A `GradScaler` multiplies the loss, and so the gradients, and divides them before the optimizer's step: in `unscale_`,
which the loop or the scaler itself calls, or inside a fused optimizer. Listening there says by how much, whoever owns
the scaler (a plain loop, accelerate, the Trainer of transformers), and when a step has been left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState

DEEP = 8  # wrappers around wrappers
Step = Callable[..., Any]


def unwrapped(optimizer: Any) -> Any:
    """The optimizer that steps: inside accelerate's, DeepSpeed's and other wrappers, and behind a scheduler, which all
    keep it as `optimizer`."""
    for _ in range(DEEP):
        inner = getattr(optimizer, "optimizer", None)
        if hasattr(optimizer, "_optimizer_step_post_hooks") or inner is None:
            break
        optimizer = inner
    return optimizer


@dataclass(frozen=True)
class Listener:
    """`unscaling` hears of every optimizer which scaler has just unscaled its gradients, and the scale that they had;
    `stepped` that a scaler is done with a step of `optimizer`, taken or left out."""

    optimizer: Any
    unscaling: Callable[[Any, GradScaler, Tensor], None]
    stepped: Callable[[], None]


class _Ears:
    """The methods of GradScaler while somebody listens."""

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

    def tell(self, scaler: GradScaler, optimizer: Any) -> None:
        scale = scaler._scale if scaler.is_enabled() else None
        if scale is not None:  # there is one once a loss has been scaled
            for listener in self.listeners:
                listener.unscaling(unwrapped(optimizer), scaler, scale.detach().clone())


_EARS = _Ears()


def listen(listener: Listener) -> Callable[[], None]:
    """Returns what ends the listening."""
    _EARS.add(listener)
    return lambda: _EARS.remove(listener)


def _unscale(scaler: GradScaler, optimizer: Any) -> None:
    _EARS.unscale_(scaler, optimizer)
    _EARS.tell(scaler, optimizer)


def _step(scaler: GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
    if is_scaled(scaler, optimizer):
        _EARS.tell(scaler, optimizer)
    taken = _EARS.step(scaler, optimizer, *args, **kwargs)
    inner = unwrapped(optimizer)
    for listener in _EARS.listeners if scaler.is_enabled() else []:
        if listener.optimizer is inner:
            listener.stepped()
    return taken


def is_scaled(scaler: Any, optimizer: Any) -> bool:
    """Whether the optimizer's gradients still have the scale. Of a scaler that keeps no such record: yes."""
    states = getattr(scaler, "_per_optimizer_states", {})
    told = [states[id(one)]["stage"] for one in (optimizer, unwrapped(optimizer)) if id(one) in states]
    return all(stage is OptState.READY for stage in told)
