"""The columns of a recorded row: which are norms of gradients, of whose, and what belongs to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from workers.trainer.adapt.parts import Part

NORM, RATIO = "grad_norm/", "update_ratio/"


class Columns:
    """`parts` are the matrices by name, `own` the identities of the parameters that the optimizer owns."""

    def __init__(self, names: list[str], parts: Mapping[str, Part], own: set[int], device: torch.device) -> None:
        self.names, self.device = names, device
        ratios = {name.removeprefix(RATIO): place for place, name in enumerate(names) if name.startswith(RATIO)}
        self._matrices = [_matrix(name) for name in names]  # None where a column is no norm of a matrix
        self._ratios = torch.tensor([ratios.get(matrix or "", 0) for matrix in self._matrices], device=device)
        self._norms = self._of(parts)
        self._others = self._of(name for name, part in parts.items() if not part.scaled_with(own))
        self._unseen: tuple[tuple[str, ...], Tensor] = (), self._norms

    def scaled(self, row: Tensor, own: Tensor | float, others: Tensor | float) -> Tensor:
        """Norms of gradients times `own` where the optimizer owns them, times `others` where it does not."""
        return row * torch.where(self._others, others, torch.where(self._norms, own, 1.0))

    def blanked(self, row: Tensor, unseen: tuple[str, ...]) -> Tensor:
        """NaN for the norms of matrices that had no gradient to read and yet moved."""
        if not unseen:
            return row
        if unseen != self._unseen[0]:  # seldom: the same ones are unseen at every step
            self._unseen = unseen, self._of(unseen)
        return row.masked_fill(self._unseen[1] & (row[self._ratios] != 0), math.nan)

    def without(self, row: Tensor, matrices: tuple[str, ...], *, norms: bool) -> Tensor:
        """NaN for all that is told of these matrices, and with `norms` for the norms of all gradients."""
        if not matrices and not norms:
            return row
        gone = set(matrices)
        masked = [_told_of(name) in gone or (norms and name.startswith(NORM)) for name in self.names]
        return row.masked_fill(torch.tensor(masked, device=self.device), math.nan)

    def _of(self, matrices: Iterable[str]) -> Tensor:
        wanted = set(matrices)
        return torch.tensor([matrix in wanted for matrix in self._matrices], device=self.device)


def _told_of(name: str) -> str:
    """`<site>/<matrix>` of any series of a matrix."""
    return name.partition("/")[2].rpartition("/head.")[0] or name.partition("/")[2]


def _matrix(name: str) -> str | None:
    """`<site>/<matrix>` of the norm of a gradient, or of one of its heads."""
    matrix = name.removeprefix(NORM)
    return None if matrix == name else matrix.rpartition("/head.")[0] or matrix
