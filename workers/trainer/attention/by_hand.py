"""The links of a gradient chain as formulas, without autograd and its backward kernels.

Sums are made in another order than autograd's: the summed index is cut into at most SLICES slices, which are added
last to first. Agreement to rounding then confirms the formula, not one kernel called twice on the same tensors.

Shapes: B batch, T queries, S keys, H heads, M the width of a layer's input, F that of its hidden layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SLICES = 8


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for [..., n, k] and [..., k, m]. Each term is rounded at most k times."""
    first, *rest = _slices(a.shape[-1])
    result = a[..., first] @ b[..., first, :]
    for part in rest:
        result += a[..., part] @ b[..., part, :]
    return result


def total(values: Tensor) -> Tensor:
    """The sum over the last axis, kept with length 1."""
    first, *rest = _slices(values.shape[-1])
    result = values[..., first].sum(-1, keepdim=True)
    for part in rest:
        result += values[..., part].sum(-1, keepdim=True)
    return result


def _slices(length: int) -> list[slice]:
    size = max(1, math.ceil(length / SLICES))
    return [slice(start, start + size) for start in reversed(range(0, max(1, length), size))]


def softmax(logits_BHTS: Tensor, mask: Tensor | None) -> Tensor:
    """Over the allowed keys (mask True); a fully masked row is all zeros."""
    allowed = logits_BHTS if mask is None else logits_BHTS.masked_fill(~mask, -math.inf)
    peak = allowed.amax(-1, keepdim=True)
    powers = (allowed - torch.where(peak.isinf(), torch.zeros_like(peak), peak)).exp()
    sums = total(powers)
    return powers / torch.where(sums == 0, torch.ones_like(sums), sums)


def through_softmax(weights_BHTS: Tensor, d_weights_BHTS: Tensor) -> Tensor:
    """dS = A∘(dA − rowsum(dA∘A)): the Jacobian diag(A) − A·Aᵀ of Bridle (1990)."""
    return weights_BHTS * (d_weights_BHTS - total(d_weights_BHTS * weights_BHTS))


def through_perceptron(norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear, x: Tensor, d_out: Tensor) -> Tensor:
    """The gradient at x [..., M] of second(GELU(first(norm(x)))) from the one at its end."""
    deviation = (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    scaled = (x - x.mean(-1, keepdim=True)) / deviation
    hidden = product(scaled * norm.weight + norm.bias, first.weight.T) + first.bias  # [..., F]
    slope = (1 + torch.erf(hidden / math.sqrt(2))) / 2 + hidden * (-hidden.square() / 2).exp() / math.sqrt(2 * math.pi)
    d_scaled = product(product(d_out, second.weight) * slope, first.weight) * norm.weight
    along = scaled * (d_scaled * scaled).mean(-1, keepdim=True)
    return (d_scaled - d_scaled.mean(-1, keepdim=True) - along) / deviation
