"""Causal swaps: Q, K or V of two tokens change places inside the attention sites, and the answers should follow.

Attention's roles predict what happens. Swapped Q: the two tokens ask each other's question. Swapped K: whoever
looked for one of the two finds the other. Swapped V: whoever finds one of the two is told the other's content.

Shapes: N sequences, T places, M = d_model.
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
from workers.trainer.data.tokens.lookups import NOBODY, Bools, Ints, Lookups

ROLES: Mapping[str, str] = {"q": "q_BHTD", "k": "k_BHSD", "v": "v_BHSE"}  # and where `QKV` holds it


@dataclass(frozen=True)
class Pairs:
    """The two places whose vectors change places, in each sequence."""

    first: Ints  # N
    second: Ints  # N

    def order(self, length: int) -> Ints:
        """NT: the place that each place takes its vector from."""
        rows = np.arange(len(self.first))
        order = np.tile(np.arange(length), (len(rows), 1))
        order[rows, self.first], order[rows, self.second] = self.second, self.first
        return order


def predicted(lookups: Lookups, order: Ints, role: str) -> Ints:
    """NT: the answer that the swap predicts at every place; NOBODY at padding."""
    if role == "q":
        asked = np.take_along_axis(lookups.asked, order, 1)
    else:  # a swap is its own inverse: who looked for `a` finds the place whose key (or content) is now a's
        asked = np.take_along_axis(order, lookups.asked.clip(0), 1)
    found = np.take_along_axis(lookups.content, asked.clip(0), 1)
    return np.where(lookups.present, found, NOBODY)


def following(lookups: Lookups, answers: Ints, order: Ints, role: str) -> float:
    """Share of the places whose answer ought to change that give exactly the answer the swap predicts; NaN where
    none ought to."""
    wanted = predicted(lookups, order, role)
    cases: Bools = wanted != lookups.answers()
    return float((answers == wanted)[cases].mean()) if cases.any() else math.nan


@contextmanager
def swapped(model: nn.Module, role: str, order_NT: Tensor) -> Iterator[None]:
    """Inside, every site takes its Q, K or V from the swapped places."""
    with edited(sites(model).values(), partial(_reordered, role, order_NT)):
        yield


def _reordered(role: str, order_NT: Tensor, qkv: QKV) -> QKV:
    field = ROLES[role]
    old: Tensor = getattr(qkv, field)
    old = old.expand(len(order_NT), *old.shape[1:])
    return qkv._replace(**{field: torch.take_along_dim(old, order_NT[:, None, :, None], 2)})
