"""Which keys a query is allowed to attend to, where a library has added its mask to the logits.

A mask that is known decides: the boolean one of `scaled_dot_product_attention`, −∞, a tensor of two values (0 and a
large negative number) that was added while the site ran, the mask of a `masked_fill` or `where`. Where several masks
and biases came as one tensor, the weights decide: keys below a gap of APART or more in a row's ordered logits have a
weight of exactly 0 in any precision and are not allowed. A bias that falls off evenly (ALiBi, relative positions) has
no such gap, however far it falls.

Shapes: [..., T, S], T queries, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

APART = 1000.0
MASKING = -50.0  # e⁻⁵⁰ is below what float64 resolves beside 1; Swin masks with −100
ADDED = {"add", "add_", "__add__", "__radd__", "__iadd__"}
SUBTRACTED = {"sub", "sub_", "__sub__", "__isub__"}
FILLED = {"masked_fill", "masked_fill_"}


class Masks:
    """The masks that a site has put on its logits since it began."""

    def __init__(self) -> None:
        self._blocked: list[Tensor] = []

    def clear(self) -> None:
        self._blocked = []

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
        """Keep what `func` has masked, if it did. Costs a pass over what a site adds to something."""
        if not isinstance(out, Tensor) or out.ndim < 2:
            return
        for blocked in _masked(getattr(func, "__name__", ""), args, given):
            if blocked.ndim <= out.ndim:
                self._blocked.append(blocked.broadcast_to(out.shape))

    def on(self, logits: Tensor) -> Tensor | None:
        """True where a mask that was noted lies on logits of this shape; None where there is none."""
        fitting = [fitted for blocked in self._blocked if (fitted := _fitted(blocked, logits.shape)) is not None]
        self.clear()
        found: Tensor | None = None
        for blocked in fitting:
            found = blocked if found is None else found | blocked
        return found


def _fitted(blocked: Tensor, shape: torch.Size) -> Tensor | None:
    """Of the same queries and keys; batch and heads may have been folded together since."""
    if blocked.shape[-2:] != shape[-2:]:
        return None
    if blocked.numel() == shape.numel():
        return blocked.reshape(shape)
    try:
        return blocked.broadcast_to(shape)
    except RuntimeError:
        return None


def _masked(name: str, args: tuple[Any, ...], given: Mapping[str, Any]) -> list[Tensor]:
    operands = [*args, *given.values()]
    if name in ADDED:
        return [two_valued(one) & (one == 0).any() for one in operands[:2] if _is_mask_like(one)]
    if name in SUBTRACTED:
        return [two_valued(-one) & (one == 0).any() for one in operands[1:2] if _is_mask_like(one)]
    if name in FILLED and len(operands) == 3:
        return [operands[1] & (_number(operands[2]) <= MASKING)]
    if name == "where" and len(operands) == 3:
        return _chosen(*operands)
    return []


def _chosen(condition: Any, one: Any, other: Any) -> list[Tensor]:
    """`where` with a single number on one side."""
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        return []
    sides = ((condition, one), (~condition, other))
    return [taken & (_number(side) <= MASKING) for taken, side in sides if _is_number(side)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


def _number(value: Any) -> Any:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _is_mask_like(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2


def two_valued(mask: Tensor) -> Tensor:
    """True at the masking number of a tensor that has no other values than it and 0; else False."""
    low = mask.amin() if mask.numel() else mask.new_zeros(())
    is_mask = ((mask == 0) | (mask == low)).all() & (low <= MASKING)
    return (mask == low) & is_mask


def allowed_keys(logits: Tensor, blocked: Tensor | None, dtype: torch.dtype) -> Tensor:
    """True where a key may be attended to. `logits` in fp32 or wider came in `dtype`, whose smallest numbers stand for
    no logit. Waits for the device once."""
    allowed = logits != -math.inf
    if blocked is not None:
        allowed = allowed & ~blocked
    shown = logits.masked_fill(~allowed, -math.inf)
    top = shown.amax(-1, keepdim=True)
    if bool((allowed & (shown < top - APART)).any()):
        allowed = allowed & ~_below_gap(shown)
    return allowed & ~(top <= torch.finfo(dtype).min / 2)


def _below_gap(logits: Tensor) -> Tensor:
    """True below the first gap of APART in each row."""
    ordered = logits.sort(-1, descending=True).values
    gaps = (ordered[..., :-1] - ordered[..., 1:]) >= APART
    first = gaps.int().argmax(-1, keepdim=True)  # of equal ones the first
    smallest = ordered.gather(-1, first).where(gaps.any(-1, keepdim=True), -math.inf)
    return logits < smallest
