"""Whether the attention of a module is one: every call over the same weights, and every head for itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .products import Operand
from .tracing import Event

Reach = dict[int, Tensor]  # by the identity of a weight: which of its entries an operand depends on
MIXES = "its heads are mixed with each other between the scores and the values, so that no weight is one head's"


def whole(calls: list[Event], weights: Mapping[str, nn.Parameter]) -> str:
    """Why one layout does not say it all; empty where it does. Costs three derivatives for each call."""
    if any(call.heads_mixed for call in calls):
        return MIXES
    if any(None in (call.query, call.key, call.value) for call in calls):
        return "computes attention that cannot be taken apart: its values, or over what its softmax goes"
    distinct: list[list[Reach]] = []
    for call in calls if len(calls) > 1 else []:
        reached = [_reached(each, weights) for each in (call.query, call.key, call.value)]
        if not any(_within(reached, other) for other in distinct):
            distinct = [each for each in distinct if not _within(each, reached)] + [reached]
    return f"computes {len(distinct)} attentions over different weights" if len(distinct) > 1 else ""


def _reached(operand: Operand | None, weights: Mapping[str, nn.Parameter]) -> Reach:
    if operand is None or not operand.tensor.requires_grad:
        return {}
    noise = torch.randn_like(operand.tensor)
    found = torch.autograd.grad(operand.tensor, list(weights.values()), noise, retain_graph=True, allow_unused=True)
    dense = (None if each is None else each.to_dense() if each.is_sparse else each for each in found)
    return {id(weight): each != 0 for weight, each in zip(weights.values(), dense, strict=True) if each is not None}


def _within(reached: list[Reach], other: list[Reach]) -> bool:
    """Whether queries, keys and values each depend on no entry that the other call's do not depend on."""
    return all(_less(one, more) for one, more in zip(reached, other, strict=True))


def _less(one: Reach, more: Reach) -> bool:
    return all(
        not bool(mask.any()) or (key in more and not bool((mask & ~more[key]).any())) for key, mask in one.items()
    )
