"""The columns of a recorded row: which are norms of gradients, and of which optimizer's parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from workers.trainer.adapt.parts import Part

NORM, RATIO = "grad_norm/", "update_ratio/"
Factors = list[tuple[Tensor, Tensor | float]]  # a mask of columns, and their factor


class Columns:
    """`parts` are the matrices by name, `own` the ids of the optimizer's parameters."""

    def __init__(self, names: list[str], parts: Mapping[str, Part], own: set[int], device: torch.device) -> None:
        self.names, self.device = names, device
        ratios = {name.removeprefix(RATIO): column for column, name in enumerate(names) if name.startswith(RATIO)}
        self._matrices = [_matrix(name) for name in names]  # None for a column that is no norm of a matrix
        self._ratios = torch.tensor([ratios.get(matrix or "", 0) for matrix in self._matrices], device=device)
        self._norms, self._count = self._of(parts), len(parts)
        self._total = torch.tensor([name == f"{NORM}total" for name in names], device=device)
        self._parts, self._owned = parts, dict[frozenset[int], Tensor]()
        self._own = self.owned_by(own)
        self._adapted = self._of(name for name, part in parts.items() if part.adapter)
        self._unseen: tuple[tuple[str, ...], Tensor] = (), self._norms

    def owned_by(self, parameters: Collection[int]) -> Tensor:
        """True at the norms of matrices whose gradients an optimizer of these parameters unscales."""
        key = frozenset(parameters)
        if key not in self._owned:
            self._owned[key] = self._of(name for name, part in self._parts.items() if part.scaled_with(key))
        return self._owned[key]

    def scaled(
        self, row: Tensor, own: Tensor | float, others: Factors, adapters: Tensor | float, rest: Tensor | float
    ) -> Tensor:
        """Norms of gradients times the factor of their optimizer, of adapters, or of the rest. A norm of 0 stays 0,
        even where the factor is NaN."""
        factors = torch.where(self._norms, rest, 1.0)
        for mask, factor in [*others, (self._own, own), (self._adapted, adapters)]:
            factors = torch.where(mask, factor, factors)
        return torch.where(row == 0, row, row * factors)

    def blanked(self, row: Tensor, unseen: tuple[str, ...]) -> Tensor:
        """NaN for the norms of matrices that had no gradient and yet changed; for the total too if these are all."""
        if not unseen:
            return row
        if unseen != self._unseen[0]:  # rarely: the set is usually the same at every step
            self._unseen = unseen, self._of(unseen)
        moved = self._unseen[1] & (row[self._ratios] != 0)
        if len(unseen) == self._count:
            moved = moved | (self._total & moved.any())
        return row.masked_fill(moved, math.nan)

    def without(self, row: Tensor, matrices: tuple[str, ...], *, norms: bool) -> Tensor:
        """NaN for all series of these matrices, and with `norms` for the norms of all gradients."""
        if not matrices and not norms:
            return row
        removed = set(matrices)
        masked = [_matrix_of(name) in removed or (norms and name.startswith(NORM)) for name in self.names]
        return row.masked_fill(torch.tensor(masked, device=self.device), math.nan)

    def _of(self, matrices: Iterable[str]) -> Tensor:
        wanted = set(matrices)
        return torch.tensor([matrix in wanted for matrix in self._matrices], device=self.device)


def _matrix_of(name: str) -> str:
    """`<site>/<matrix>` of any series of a matrix."""
    return name.partition("/")[2].rpartition("/head.")[0] or name.partition("/")[2]


def _matrix(name: str) -> str | None:
    """`<site>/<matrix>` of a gradient norm, or of one of a head; else None."""
    return _matrix_of(name) if name.startswith(NORM) else None
