"""The task `roles`: every token of a sentence names the word of its governor."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.spec import RolesSpec
from workers.trainer.data.draws import Split
from workers.trainer.data.tokens import roles
from workers.trainer.data.tokens.grammar import CLAUSES, LENGTH, OBJECT, SUBJECT, VOCABULARY, case
from workers.trainer.data.tokens.lookups import Ints, Lookups
from workers.trainer.tasks.lookup.swaps import ROLES, Pairs
from workers.trainer.tasks.lookup.task import LookupTask


class RolesTask(LookupTask):
    """Training supervises one relation of each token; attention mass is measured on all gold relations."""

    finals = (
        "accuracy",
        "gold_mass",
        "swap",
        "swap/k",
        "swap/v",
        "untrained/accuracy",
        "untrained/gold_mass",
        "untrained/swap",
        "position/gold_mass",
    )
    spec: RolesSpec

    def __init__(self, spec: RolesSpec, device: torch.device) -> None:
        super().__init__(spec, device, sizes=roles.SIZES, length=LENGTH, classes=len(VOCABULARY))

    def lookups(self, split: Split, indices: Ints) -> Lookups:
        return roles.batch(self.spec.data, split, indices)

    def labels(self, fields_TF: Ints) -> list[str]:
        return [VOCABULARY[word] for word in fields_TF[:, roles.WORD]]

    def final(self) -> dict[str, float]:
        test, untrained = self.test(), self.untrained().to(self.device).eval()
        both, pairs = namesakes(test)
        swaps = {"swap" if role == "q" else f"swap/{role}": self.swap(self.model, both, pairs, role) for role in ROLES}
        scores = self.scores(self.model, test) | self.scores(untrained, test, "untrained/")
        return (
            swaps
            | scores
            | {
                "untrained/swap": self.swap(untrained, both, pairs, "q"),
                "position/gold_mass": position_gold_mass(self._val, test),
            }
        )


def namesakes(lookups: Lookups) -> tuple[Lookups, Pairs]:
    """The sentences of two clauses, and in each the two tokens of one role, roles in turn. Both look for the same in
    their own clause, so that a swap changes only what they attend to."""
    some = lookups.rows(np.flatnonzero(lookups.present.all(1)))
    every = np.stack([_positions(some, clause) for clause in range(CLAUSES)])  # clauses, N, roles
    rows = np.arange(len(some.fields))
    first, second = every[:, rows, rows % every.shape[-1]]
    return some, Pairs(first, second)


def _positions(lookups: Lookups, clause: int) -> Ints:
    """[N, 4]: the positions of subject, modal, verb and object of a clause. Words may be hidden, cases never are."""
    cases, rows = lookups.fields[..., roles.CASE], np.arange(len(lookups.fields))
    subject, thing = ((cases == case(role, clause)).argmax(1) for role in (SUBJECT, OBJECT))
    return np.stack([subject, lookups.targets[rows, subject], lookups.targets[rows, thing], thing], 1)


def position_gold_mass(val: Lookups, test: Lookups) -> float:
    """Gold mass of the best attention by position alone: for each length, all weight on the key position that is gold
    most often for the query position, counted on `val`, scored on `test`."""
    lengths = test.present.sum(1)
    mass = 0.0
    for length in np.unique(lengths):
        guessed = _rates(val, length).argmax(-1)
        mass += _rates(test, length)[np.arange(length), guessed[:length]].sum() * (lengths == length).sum()
    return float(mass / test.present.sum())


def _rates(lookups: Lookups, length: int) -> NDArray[np.float64]:
    """[T, T]: how often a position is gold for another among the sentences of this length; 0 if there are none."""
    gold = lookups.gold[lookups.present.sum(1) == length]
    rates: NDArray[np.float64] = gold.sum(0) / max(1, len(gold))
    return rates
