"""A batch of sequences in which every token has to be answered by another: pointer and roles share its form.

Shapes: N sequences, T places, F fields of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
NOBODY = -1  # in `asked`: the place is padding


@dataclass(frozen=True)
class Lookups:
    """Tokens and the truth about whom each asks."""

    fields: Ints  # NTF, ids of each token's fields
    present: Bools  # NT, False where a place is padding
    content: Ints  # NT, the class that a token tells whoever asks it
    asked: Ints  # NT, place of the token whose content is the right answer; NOBODY at padding
    gold: Bools  # NTT, whom a token's attention counts as right: `asked`, and what else the relation names

    def answers(self) -> Ints:
        """NT: the right class at every place; NOBODY at padding."""
        found = np.take_along_axis(self.content, self.asked.clip(0), 1)
        return np.where(self.present, found, NOBODY)

    def rows(self, chosen: slice | Ints) -> Lookups:
        """Some of the sequences."""
        return Lookups(
            self.fields[chosen], self.present[chosen], self.content[chosen], self.asked[chosen], self.gold[chosen]
        )
