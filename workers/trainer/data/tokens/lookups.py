"""A batch of sequences in which every token names the content of another: the form of pointer and roles.

Shapes: N sequences, T positions, F fields of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
PADDING = -1  # in `targets`: the position is padding


@dataclass(frozen=True)
class Lookups:
    """Tokens, and the token whose content each should name."""

    fields: Ints  # NTF, ids of each token's fields
    present: Bools  # NT, False at padding
    content: Ints  # NT, the class that a token holds
    targets: Ints  # NT, position of the token whose content is right; PADDING at padding
    gold: Bools  # NTT, where a token's attention counts as right: `targets`, and the others of its relation

    def truth(self) -> Ints:
        """NT: the right class at every position; PADDING at padding."""
        content = np.take_along_axis(self.content, self.targets.clip(0), 1)
        return np.where(self.present, content, PADDING)

    def rows(self, chosen: slice | Ints) -> Lookups:
        """Some of the sequences."""
        return Lookups(*(array[chosen] for array in vars(self).values()))
