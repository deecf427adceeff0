"""Which keys a query may attend to, where a library adds its mask to the logits.

A recorded mask decides: the boolean one of `scaled_dot_product_attention`, −∞, a tensor of two values (0 and a large
negative number) added while the site ran, the mask of a `masked_fill` or `where`. Where masks and biases were combined
into one tensor, the logits decide: keys below a gap of GAP or more in a row's ordered logits have a weight of exactly 0
in any precision and are not allowed. A bias that decreases evenly (ALiBi, relative positions) has no such gap.

Shapes: [..., T, S], T queries, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

GAP = 1000.0
MASKING = -50.0  # 1 + e⁻⁵⁰ is 1 in float64; Swin masks with −100
ADDED = {"add", "add_", "__add__", "__radd__", "__iadd__"}
SUBTRACTED = {"sub", "sub_", "__sub__", "__isub__"}
FILLED = {"masked_fill", "masked_fill_"}


class Masks:
    """The masks that a site has applied to logits since its run began."""

    def __init__(self) -> None:
        self._blocked: list[Tensor] = []

    def clear(self) -> None:
        self._blocked = []

    def record(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
        """Keep the mask that `func` has applied, if any. Costs a pass over each tensor that a site adds."""
        if not isinstance(out, Tensor) or out.ndim < 2:
            return
        for blocked in _masked(getattr(func, "__name__", ""), args, given):
            if blocked.ndim <= out.ndim:
                self._blocked.append(blocked.broadcast_to(out.shape))

    def on(self, logits: Tensor) -> Tensor | None:
        """True where a recorded mask blocks logits of this shape; None where there is no mask."""
        fitting = [fitted for blocked in self._blocked if (fitted := _fitted(blocked, logits.shape)) is not None]
        self.clear()
        return reduce(torch.logical_or, fitting) if fitting else None


def _fitted(blocked: Tensor, shape: torch.Size) -> Tensor | None:
    """The mask in this shape, where queries and keys are as many; batch and heads may have been folded since."""
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
        return [two_valued(mask) & (mask == 0).any() for mask in _mask_like(operands[:2])]
    if name in SUBTRACTED:
        return [two_valued(-mask) & (mask == 0).any() for mask in _mask_like(operands[1:2])]
    if name in FILLED and len(operands) == 3:
        return [operands[1] & (_number(operands[2]) <= MASKING)]
    if name == "where" and len(operands) == 3:
        return _chosen(*operands)
    return []


def _chosen(condition: Any, true: Any, false: Any) -> list[Tensor]:
    """The mask of a `where` with a single number on one side."""
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        return []
    sides = ((condition, true), (~condition, false))
    return [taken & (_number(value) <= MASKING) for taken, value in sides if _is_number(value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


def _number(value: Any) -> Any:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _mask_like(values: list[Any]) -> list[Tensor]:
    return [each for each in values if isinstance(each, Tensor) and each.is_floating_point() and each.ndim >= 2]


def two_valued(mask: Tensor) -> Tensor:
    """True at the masking value of a tensor that has no values but it and 0; else False everywhere."""
    low = mask.amin() if mask.numel() else mask.new_zeros(())
    is_mask = ((mask == 0) | (mask == low)).all() & (low <= MASKING)
    return (mask == low) & is_mask


def allowed_keys(logits: Tensor, blocked: Tensor | None, dtype: torch.dtype) -> Tensor:
    """True where a query may attend to a key. `logits`, now in fp32 or wider, came in `dtype`, whose smallest numbers
    mean a masked key. Synchronizes with the device once."""
    allowed = logits != -math.inf
    if blocked is not None:
        allowed = allowed & ~blocked
    masked = logits.masked_fill(~allowed, -math.inf)
    top = masked.amax(-1, keepdim=True)
    if bool((allowed & (masked < top - GAP)).any()):
        allowed = allowed & ~_below_gap(masked)
    return allowed & ~(top <= torch.finfo(dtype).min / 2)


def _below_gap(logits: Tensor) -> Tensor:
    """True below the first gap of GAP in each row."""
    ordered = logits.sort(-1, descending=True).values
    gaps = (ordered[..., :-1] - ordered[..., 1:]) >= GAP
    first = gaps.int().argmax(-1, keepdim=True)  # the first of equal ones
    smallest = ordered.gather(-1, first).where(gaps.any(-1, keepdim=True), -math.inf)
    return logits < smallest
