"""The attention map, for our modules and for those of other libraries.

Shapes: [..., T, S], T queries, S keys; `allowed` broadcasts to it, True where a query may attend to a key.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits with -inf where a key is not allowed, and the weights; a fully masked row is all zeros."""
    if allowed is None:
        return logits, logits.softmax(-1)
    shown = logits.masked_fill(~allowed, -math.inf)
    return shown, shown.softmax(-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def normalized_entropy(weights: Tensor, keys: Tensor) -> Tensor:
    """[..., T]: -sum_j A_ij ln A_ij / ln(`keys` of query i); 1 is uniform, 0 is one key or none."""
    return torch.special.entr(weights).sum(-1) / keys.clamp(min=2).log()
