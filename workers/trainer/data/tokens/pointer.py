"""Pointer lookup: every token has a name and another token's name, and should tell that token's payload."""

from __future__ import annotations

import numpy as np

from experiments.spec import PointerData
from workers.trainer.data.draws import Split, below, draws, permutations
from workers.trainer.data.tokens.lookups import Ints, Lookups

NAME, TARGET, PAYLOAD = range(3)  # fields of a token


def sizes(data: PointerData) -> tuple[int, int, int]:
    """How many ids each field has."""
    return data.tokens, data.tokens, data.payloads


def batch(data: PointerData, split: Split, indices: Ints) -> Lookups:
    """Sequences of `data.tokens` tokens. Names are a permutation; a token refers to any other, never itself."""
    count = data.tokens
    words = draws(split, indices, 3 * count)
    names = permutations(words[:, :count])
    targets = (np.arange(count) + 1 + below(words[:, count : 2 * count], count - 1)) % count
    payloads = below(words[:, 2 * count :], data.payloads)
    fields = np.stack([names, np.take_along_axis(names, targets, 1), payloads], -1)
    gold = targets[..., None] == np.arange(count)
    return Lookups(fields, np.ones_like(targets, np.bool_), payloads, targets, gold)


def mode_guess(lookups: Lookups, payloads: int) -> float:
    """Accuracy of the sequence's most frequent payload everywhere, which needs no attention."""
    counts = (lookups.content[..., None] == np.arange(payloads)).sum(1)  # N, payloads
    return float((lookups.truth() == counts.argmax(1)[:, None]).mean())
