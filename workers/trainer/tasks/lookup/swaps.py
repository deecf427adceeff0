"""Causal swaps: Q, K or V of two tokens are exchanged inside the attention sites, and the predictions should follow.

Swapped Q: the two tokens attend as the other did. Swapped K: tokens that attended to one of the two attend to the
other. Swapped V: tokens that attend to one of the two get the other's content.

Shapes: N sequences, T positions, M = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from workers.trainer.attention import QKV
from workers.trainer.attention.hooks import edited
from workers.trainer.attention.sites import sites
from workers.trainer.data.tokens.lookups import PADDING, Bools, Ints, Lookups

ROLES: Mapping[str, str] = {"q": "q_BHTD", "k": "k_BHSD", "v": "v_BHSE"}  # and its field in `QKV`


@dataclass(frozen=True)
class Pairs:
    """The two positions whose vectors are exchanged, in each sequence."""

    first: Ints  # N
    second: Ints  # N

    def order(self, length: int) -> Ints:
        """NT: the position from which each position takes its vector."""
        rows = np.arange(len(self.first))
        order = np.tile(np.arange(length), (len(rows), 1))
        order[rows, self.first], order[rows, self.second] = self.second, self.first
        return order


def expected_classes(lookups: Lookups, order: Ints, role: str) -> Ints:
    """NT: the class that the swap should lead to at every position; PADDING at padding."""
    if role == "q":
        targets = np.take_along_axis(lookups.targets, order, 1)
    else:  # a swap is its own inverse: a target moves to where its key (or content) is now
        targets = np.take_along_axis(order, lookups.targets.clip(0), 1)
    content = np.take_along_axis(lookups.content, targets.clip(0), 1)
    return np.where(lookups.present, content, PADDING)


def following(lookups: Lookups, predictions: Ints, order: Ints, role: str) -> float:
    """Of the positions whose class should change, the share with exactly the expected class; NaN if there are none."""
    wanted = expected_classes(lookups, order, role)
    cases: Bools = wanted != lookups.truth()
    return float((predictions == wanted)[cases].mean()) if cases.any() else math.nan


@contextmanager
def swapped(model: nn.Module, role: str, order_NT: Tensor) -> Iterator[None]:
    """Inside, every site takes its Q, K or V from the swapped positions."""
    with edited(sites(model).values(), partial(_reordered, role, order_NT)):
        yield


def _reordered(role: str, order_NT: Tensor, qkv: QKV) -> QKV:
    field = ROLES[role]
    old: Tensor = getattr(qkv, field)
    old = old.expand(len(order_NT), *old.shape[1:])
    return qkv._replace(**{field: torch.take_along_dim(old, order_NT[:, None, :, None], 2)})
