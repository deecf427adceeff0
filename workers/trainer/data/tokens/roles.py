"""Sentences of the roles grammar in which every token should name another token's word.

A sentence is all Chinese or all English, of one clause or two. `shuffled` mixes all its tokens: only the case
markers identify them. `fixed` keeps the order of speech.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from experiments.spec import RolesData
from workers.trainer.data.draws import Split, Words, below, draws
from workers.trainer.data.tokens import grammar
from workers.trainer.data.tokens.grammar import CLAUSES, LENGTH
from workers.trainer.data.tokens.lookups import PADDING, Bools, Ints, Lookups

WORD, CASE = range(2)  # fields of a token
SIZES = (len(grammar.VOCABULARY), len(grammar.CASES))
_ROLES = range(4)
_HIDDEN = 32  # one word in so many is replaced by <unknown>, so that its embedding is trained
# By position in the order of speech, clause after clause:
_CASE = np.array([grammar.case(role, clause) for clause in range(CLAUSES) for role in _ROLES])
_TARGET = np.array([4 * clause + grammar.TARGET[role] for clause in range(CLAUSES) for role in _ROLES])
_GOLD = np.kron(np.eye(CLAUSES, dtype=np.bool_), [[other in grammar.GOLD[role] for other in _ROLES] for role in _ROLES])


def batch(data: RolesData, split: Split, indices: Ints) -> Lookups:
    """Sentences, padded to LENGTH tokens."""
    drawn = draws(split, indices, 2 * LENGTH + CLAUSES + 2)
    spoken = np.arange(LENGTH) < 4 * (1 + below(drawn[:, -1:], CLAUSES))
    words = _words(below(drawn[:, -2], len(grammar.LANGUAGES)), drawn[:, LENGTH : LENGTH + CLAUSES])
    words = np.where(below(drawn[:, -2 - LENGTH : -2], _HIDDEN) == 0, grammar.UNKNOWN, words)
    order = _order(data.order, drawn[:, :LENGTH], spoken)
    present = np.take_along_axis(spoken, order, 1)
    position = order.argsort(1)  # of each token in the order of speech
    targets = np.take_along_axis(position, _TARGET[order], 1)
    word = np.where(present, np.take_along_axis(words, order, 1), grammar.PAD)
    gold = _GOLD[order[:, :, None], order[:, None, :]] & present[:, :, None] & present[:, None, :]
    fields = np.stack([word, np.where(present, _CASE[order], 0)], -1)
    return Lookups(fields, present, word, np.where(present, targets, PADDING), gold)


def _words(tongues: Ints, drawn: Words) -> Ints:
    """[N, LENGTH] word ids: each clause drawn uniformly from the language's clauses."""
    table, starts, counts = _table()
    rows = starts[tongues][:, None] + below(drawn, counts[tongues][:, None])
    words: Ints = table[rows].reshape(len(tongues), LENGTH)
    return words


@cache
def _table() -> tuple[Ints, Ints, Ints]:
    """Every clause as a row of word ids; the first row and the number of rows of each language."""
    by_tongue = [_clauses(tongue) for tongue in grammar.LANGUAGES]
    counts = np.array([len(rows) for rows in by_tongue])
    return np.concatenate(by_tongue), np.cumsum(counts) - counts, counts


def _clauses(tongue: str) -> list[list[int]]:
    """Every clause, without those in which subject and object are equal (我 看 我)."""
    return [
        [grammar.IDS[subject], grammar.IDS[modal], grammar.IDS[verb], grammar.IDS[thing]]
        for subject, modal, verb in product(grammar.PEOPLE[tongue], grammar.MODALS[tongue], grammar.VERBS[tongue])
        for thing in grammar.VERBS[tongue][verb]
        if thing != subject
    ]


def _order(order: str, drawn: Words, spoken: Bools) -> Ints:
    """[N, LENGTH]: which token of speech is at each position; padding stays at the end."""
    if order == "fixed":
        return np.broadcast_to(np.arange(LENGTH), spoken.shape).copy()
    halved = drawn >> np.uint64(1)
    return np.where(spoken, halved, halved | np.uint64(1 << 63)).argsort(1, kind="stable")
