"""The columns of a recorded row: which are norms of gradients, of whose, and what belongs to them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from workers.trainer.adapt.parts import Part

NORM, RATIO = "grad_norm/", "update_ratio/"
Factors = list[tuple[Tensor, Tensor | float]]  # by which the columns of a mask are multiplied


class Columns:
    """`parts` are the matrices by name, `own` the identities of the parameters that the optimizer owns."""

    def __init__(self, names: list[str], parts: Mapping[str, Part], own: set[int], device: torch.device) -> None:
        self.names, self.device = names, device
        ratios = {name.removeprefix(RATIO): place for place, name in enumerate(names) if name.startswith(RATIO)}
        self._matrices = [_matrix(name) for name in names]  # None where a column is no norm of a matrix
        self._ratios = torch.tensor([ratios.get(matrix or "", 0) for matrix in self._matrices], device=device)
        self._norms, self._count = self._of(parts), len(parts)
        self._total = torch.tensor([name == f"{NORM}total" for name in names], device=device)
        self._parts, self._owned = parts, dict[frozenset[int], Tensor]()
        self._own = self.owned_by(own)
        self._adapted = self._of(name for name, part in parts.items() if part.adapter)
        self._unseen: tuple[tuple[str, ...], Tensor] = (), self._norms

    def owned_by(self, parameters: Collection[int]) -> Tensor:
        """True at the norms of matrices that an optimizer of these parameters unscales."""
        key = frozenset(parameters)
        if key not in self._owned:
            self._owned[key] = self._of(name for name, part in self._parts.items() if part.scaled_with(key))
        return self._owned[key]

    def scaled(
        self, row: Tensor, own: Tensor | float, others: Factors, adapters: Tensor | float, rest: Tensor | float
    ) -> Tensor:
        """Norms of gradients times the factor of the optimizer that owns them, of an adapter, or of the rest; a norm of
        0 has no scale."""
        factors = torch.where(self._norms, rest, 1.0)
        for mask, factor in [*others, (self._own, own), (self._adapted, adapters)]:
            factors = torch.where(mask, factor, factors)
        return torch.where(row == 0, row, row * factors)

    def blanked(self, row: Tensor, unseen: tuple[str, ...]) -> Tensor:
        """NaN for the norms of matrices that had no gradient to read and yet moved; where that is all of them, for the
        total too."""
        if not unseen:
            return row
        if unseen != self._unseen[0]:  # seldom: the same ones are unseen at every step
            self._unseen = unseen, self._of(unseen)
        moved = self._unseen[1] & (row[self._ratios] != 0)
        if len(unseen) == self._count:
            moved = moved | (self._total & moved.any())
        return row.masked_fill(moved, math.nan)

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
