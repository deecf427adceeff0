"""The training samples of a step: a pure function of seed and step, so that a resumed run uses the same."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def batch_indices(seed: int, position: int, batch_size: int, size: int) -> NDArray[np.int64]:
    """Samples of the batch that starts at `position` draws since the start; every epoch is a new permutation."""
    draws = np.arange(position, position + batch_size)
    epochs = draws // size
    return np.concatenate(
        [_epoch(seed, int(epoch), size)[draws[epochs == epoch] % size] for epoch in np.unique(epochs)]
    )


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(size)
