"""Random numbers by (split, index): the same for a sample in any batch, and drawn for a whole batch at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Split = Literal["train", "val", "test"]
SPLIT_SEEDS: dict[str, int] = {"train": 1, "val": 2, "test": 3}

_GAMMA, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def stream(seed: int, position: int, count: int) -> NDArray[np.int64]:
    """Indices of `count` training samples from `position` on: every training seed reads a stream of its own."""
    return (np.int64(seed) << 32) + np.arange(position, position + count, dtype=np.int64)


def draws(split: Split, indices: NDArray[np.int64], columns: int) -> Words:
    """[N, columns] random words: row n depends on (split, indices[n]) alone. SplitMix64 (Steele, Lea, Flood 2014)
    over a counter, started at a mix of split and index."""
    with np.errstate(over="ignore"):
        start = _mixed(indices.astype(np.uint64) + _mixed(np.uint64(SPLIT_SEEDS[split]) * _GAMMA))
        counters = np.arange(1, columns + 1, dtype=np.uint64) * _GAMMA
        return _mixed(start[:, None] + counters[None, :])


def below(words: Words, limit: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers in [0, limit), by the upper 32 bits of each word; biased by less than limit ÷ 2³²."""
    scaled = (words >> np.uint64(32)) * np.asarray(limit, np.uint64)
    return (scaled >> np.uint64(32)).astype(np.int64)


def permutations(words: Words) -> NDArray[np.int64]:
    """A permutation of the columns for each row: [N, columns]."""
    return words.argsort(1, kind="stable")


def _mixed(x: np.uint64 | NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = np.asarray(x, np.uint64) + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))
