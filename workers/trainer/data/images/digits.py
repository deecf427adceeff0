"""The 1,797 handwritten 8×8 digits of scikit-learn, in a fixed shuffled order and split."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 8
CLASSES = 10


@lru_cache(maxsize=1)
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images [1797, 8, 8] in [0, 1] and labels, in a fixed shuffled order."""
    table = _table()
    order = np.random.default_rng(0).permutation(len(table))
    images = table[order, :-1].reshape(-1, SIDE, SIDE) / 16
    return images.astype(np.float32), table[order, -1].astype(np.int64)


def _table() -> NDArray[np.float64]:
    """A row for each digit: 64 grey values of 0 to 16 and its class. Read from scikit-learn's file, since importing
    scikit-learn would take a third of a trainer's start."""
    package = find_spec("sklearn")
    path = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else Path()
    if path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return np.column_stack([images, classes])


def split(val_share: float) -> tuple[slice, slice]:
    """Rows for training and for evaluation; they never overlap."""
    count = len(digits()[1])
    held_out = min(max(1, round(count * val_share)), count - 1)
    return slice(0, count - held_out), slice(count - held_out, count)
