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
    left, right = product.left.of_product(product.kept), product.right.of_product(product.kept)
    for place in (0, -1, logits.shape[dim] // 2) if logits.requires_grad else ():
        counts = [_tokens(logits.select(dim, place), side, set(product.out) - product.kept) for side in (left, right)]
        if 0 in counts or counts[0] == counts[1] or min(counts) > 1:
            continue
        return _named(product, left, right) if counts[0] > counts[1] else _named(product, right, left)
    if dim not in (-1, logits.ndim - 1) or logits.ndim < 2:
        return None
    of_right = product.alone(product.right) - product.alone(product.left)
    keys_last = bool(product.out) and product.out[-1] in of_right
    return _named(product, left, right) if keys_last else _named(product, right, left)


def _named(product: Product, query: Operand, key: Operand) -> Sides:
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
    own = [axis for axis, label in enumerate(side.labels) if label in labels]
    (gradient,) = gradients
    if gradient is None or not own:
        return 0
    summed = [axis for axis in range(gradient.ndim) if axis not in own and side.labels[axis] not in side.kept]
    reached = (gradient != 0).any(dim=summed, keepdim=True) if summed else gradient != 0
    return int(reached.sum(dim=own).max())
