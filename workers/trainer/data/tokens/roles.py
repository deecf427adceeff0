"""Sentences of the roles grammar in which every token asks for another token's word.

A sentence is all Chinese or all English, of one clause or two. `shuffled` mixes all its tokens: position tells
nothing, the case markers tell everything. `fixed` keeps the order of speech.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from experiments.spec import RolesData
from workers.trainer.data.draws import Split, Words, below, draws
from workers.trainer.data.tokens.lookups import NOBODY, Bools, Ints, Lookups
from workers.trainer.data.tokens.roles_grammar import (
    ASKS,
    CASES,
    CLAUSES,
    GOLD,
    IDS,
    LANGUAGES,
    LENGTH,
    MODALS,
    PAD,
    PEOPLE,
    UNKNOWN,
    VERBS,
    VOCABULARY,
    case,
)

WORD, CASE = range(2)  # fields of a token
SIZES = (len(VOCABULARY), len(CASES))
_ROLES = range(4)
_HIDDEN = 32  # one word in so many is shown as unknown, so that a typed word that nobody knows meets a trained row
# By place in the order of speech, clause after clause:
_CASE = np.array([case(role, clause) for clause in range(CLAUSES) for role in _ROLES])
_ASKED = np.array([4 * clause + ASKS[role] for clause in range(CLAUSES) for role in _ROLES])
_GOLD = np.kron(np.eye(CLAUSES, dtype=np.bool_), [[other in GOLD[role] for other in _ROLES] for role in _ROLES])


def batch(data: RolesData, split: Split, indices: Ints) -> Lookups:
    """Sentences, padded to LENGTH places."""
    drawn = draws(split, indices, 2 * LENGTH + CLAUSES + 2)
    spoken = np.arange(LENGTH) < 4 * (1 + below(drawn[:, -1:], CLAUSES))
    words = _words(below(drawn[:, -2], len(LANGUAGES)), drawn[:, LENGTH : LENGTH + CLAUSES])
    words = np.where(below(drawn[:, -2 - LENGTH : -2], _HIDDEN) == 0, UNKNOWN, words)
    order = _order(data.order, drawn[:, :LENGTH], spoken)
    present = np.take_along_axis(spoken, order, 1)
    place = order.argsort(1)  # where the token of each place of speech stands
    asked = np.take_along_axis(place, _ASKED[order], 1)
    word = np.where(present, np.take_along_axis(words, order, 1), PAD)
    gold = _GOLD[order[:, :, None], order[:, None, :]] & present[:, :, None] & present[:, None, :]
    fields = np.stack([word, np.where(present, _CASE[order], 0)], -1)
    return Lookups(fields, present, word, np.where(present, asked, NOBODY), gold)


def _words(tongues: Ints, drawn: Words) -> Ints:
    """[N, LENGTH] word ids: each clause any of the language's clauses with equal chance."""
    table, starts, counts = _table()
    rows = starts[tongues][:, None] + below(drawn, counts[tongues][:, None])
    found: Ints = table[rows].reshape(len(tongues), LENGTH)
    return found


@cache
def _table() -> tuple[Ints, Ints, Ints]:
    """Every clause as a row of word ids, and where each language's rows start and how many they are."""
    by_tongue = [_clauses(tongue) for tongue in LANGUAGES]
    counts = np.array([len(rows) for rows in by_tongue])
    return np.concatenate(by_tongue), np.cumsum(counts) - counts, counts


def _clauses(tongue: str) -> list[list[int]]:
    """Nobody does something to himself: 我 看 我 is left out."""
    return [
        [IDS[subject], IDS[modal], IDS[verb], IDS[thing]]
        for subject, modal, verb in product(PEOPLE[tongue], MODALS[tongue], VERBS[tongue])
        for thing in VERBS[tongue][verb]
        if thing != subject
    ]


def _order(order: str, drawn: Words, spoken: Bools) -> Ints:
    """[N, LENGTH]: which place of speech stands at each place; padding stays at the end."""
    if order == "fixed":
        return np.broadcast_to(np.arange(LENGTH), spoken.shape).copy()
    halved = drawn >> np.uint64(1)
    return np.where(spoken, halved, halved | np.uint64(1 << 63)).argsort(1, kind="stable")
