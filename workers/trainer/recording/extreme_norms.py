"""Norms of finite gradients whose squares leave the range of fp32: entries below about 1e-19 or above about 1e19.

A norm that may have lost squares is computed again from entries times a power of two, which rounds nothing. On the CPU
only those norms are; on a device, where choosing would mean waiting, all are, and the affected ones are selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

AT_HAND = {"cpu"}  # devices whose values need no wait
DOWN, UP = 2.0**-96, 2.0**96
ROUNDED = 2.0**-51  # times √entries: a larger norm's lost squares are all below its rounding


def is_lost(norms: Tensor, entries: int) -> Tensor:
    """Where squares of this many entries may have overflowed or underflowed."""
    return norms.isinf() | (norms < ROUNDED * math.sqrt(entries))


def kept(norms: Tensor, units: Tensor) -> Tensor:
    """`norms` of matrices `units` [..., rows, columns], corrected where squares were lost."""
    lost = is_lost(norms, units.shape[-2:].numel())
    if units.dtype == torch.float64:
        return norms
    if units.device.type not in AT_HAND:
        return torch.where(lost, _scaled(units, norms), norms)
    if not bool(lost.any()):
        return norms
    again = norms.clone()
    again[lost] = _scaled(units[lost], norms[lost])
    return again


def together(norms: Tensor, parts: Tensor, entries: int) -> Tensor:
    """`norms` [n] of matrices, computed from the norms of their parts [n, parts] where squares were lost."""
    if parts.dtype == torch.float64:
        return norms
    return torch.where(is_lost(norms, entries), torch.linalg.vector_norm(parts.double(), dim=1).float(), norms)


def kept_total(norm: Tensor, gradients: Sequence[Tensor], *, large: bool) -> Tensor:
    """`norm` of all gradients, in fp64 where squares were lost; without `large` an overflow stays inf."""
    lost = is_lost(norm, sum(gradient.numel() for gradient in gradients))
    lost = lost if large else lost & ~norm.isinf()
    if norm.dtype == torch.float64 or (norm.device.type in AT_HAND and not bool(lost)):
        return norm
    wide = [each.to(norm.device) for each in torch._foreach_norm(list(gradients), 2, dtype=torch.float64)]
    return torch.where(lost, torch.linalg.vector_norm(torch.stack(wide)).float(), norm)


def _scaled(units: Tensor, norms: Tensor) -> Tensor:
    factor = torch.where(norms > 1, DOWN, UP)
    return torch.linalg.vector_norm(units * factor[..., None, None], dim=(-2, -1)) / factor
