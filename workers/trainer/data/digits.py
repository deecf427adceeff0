"""The 1,797 handwritten 8×8 digits of scikit-learn, shuffled once and split for good."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

SIDE = 8
CLASSES = 10


@lru_cache(maxsize=1)
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images [1797, 8, 8] in [0, 1] and labels, in a fixed shuffled order."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    return (bunch.images[order] / 16).astype(np.float32), bunch.target[order].astype(np.int64)


def split(val_share: float) -> tuple[slice, slice]:
    """Rows for training and for evaluation; they never overlap."""
    count = len(digits()[1])
    held_out = min(max(1, round(count * val_share)), count - 1)
    return slice(0, count - held_out), slice(count - held_out, count)
