"""Which factor of the scores has the queries and which the keys."""

from __future__ import annotations

import torch
from torch import Tensor

from .products import Operand, Product

Sides = tuple[Operand, Operand]


def sides_of(product: Product, logits: Tensor, dim: int) -> Sides | None:
    """Queries, then keys, of a softmax of `logits` over `dim`. Axes may be transposed between the product and the
    softmax, so derivatives decide: one position along `dim` depends on one key and on every query. Where they cannot,
    the keys are the product's last axis, if the softmax goes over the last one."""
    sides = product.left.of_product(product.kept), product.right.of_product(product.kept)
    for place in (0, -1, logits.shape[dim] // 2) if logits.requires_grad else ():
        counts = [_tokens(logits.select(dim, place), side, set(product.out) - product.kept) for side in sides]
        if min(counts) == 1 and max(counts) > 1:
            return _named(product, *sides, keys_first=counts[0] < counts[1])
    if dim not in (-1, logits.ndim - 1) or logits.ndim < 2:
        return None
    keys_last = bool(product.out) and product.out[-1] in product.alone(product.right)
    return _named(product, *sides, keys_first=not keys_last)


def _named(product: Product, left: Operand, right: Operand, *, keys_first: bool) -> Sides:
    query, key = (right, left) if keys_first else (left, right)
    return query.of_product(product.kept, (set(product.out) - product.kept) & set(query.labels)), key


def _tokens(scores: Tensor, side: Operand, labels: set[str]) -> int:
    """How many tokens of this factor the scores depend on, at most in any sample and head."""
    if not side.tensor.requires_grad:
        return 0
    noise = torch.randn_like(scores)
    try:
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            scores, side.tensor, noise, retain_graph=True, allow_unused=True
        )
    except RuntimeError:  # of a graph with foreign hooks or kernels: this runs inside the model's own call
        return 0
    own = side.axes(labels)
    (gradient,) = gradients
    if gradient is None or not own:
        return 0
    summed = [axis for axis in range(gradient.ndim) if axis not in own and side.labels[axis] not in side.kept]
    reached = (gradient != 0).any(dim=summed, keepdim=True) if summed else gradient != 0
    return int(reached.sum(dim=own).max())
