"""Samples: stored series of succeeded runs that the reader may see, pooled by evidence key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from experiments import store
from experiments.models.runs import RunQuerySet
from experiments.spec.identity import Identity
from experiments.states import State

from .cells import Cell, chosen
from .judge import Values
from .keys import Candidate, Choice, choose
from .rules import Rule, Term


@dataclass(frozen=True)
class RunValues:
    """What terms read of runs: last values of series, and the first step at which a series lies below a value."""

    last: dict[int, dict[str, float]] = field(default_factory=dict)  # run → series → value
    first_below: dict[tuple[str, float], dict[int, int | None]] = field(default_factory=dict)

    def of(self, run: int, term: Term) -> float | None:
        """The term's value for a run; None where the run has not recorded what it needs."""
        if term.below is not None:
            return self.first_below.get((term.metrics[0], term.below), {}).get(run)
        last = self.last.get(run, {})
        if not all(name in last for name in term.last):
            return None
        base = sum(last[name] for name in term.minus) / len(term.minus) if term.minus else 0.0
        return sum(last[name] for name in term.metrics) / len(term.metrics) - base

    def lacks(self, run: int, term: Term) -> str:
        """Why a run has no value for the term."""
        if term.below is None:
            lacking = [name for name in term.last if name not in self.last.get(run, {})]
            return f"run {run} has no finite {' and '.join(lacking)}"
        if run in self.first_below.get((term.metrics[0], term.below), {}):
            return f"run {run} never went below {term.below:g} in {term.metrics[0]}; the number of steps is unknown"
        return f"run {run} does not have every point of {term.metrics[0]}"


def measured(runs: Collection[int], metrics: Collection[str], crossings: Collection[tuple[str, float]]) -> RunValues:
    ordered = sorted(runs)
    below = {(name, bound): store.first_below(ordered, name, bound) for name, bound in crossings}
    return RunValues(store.last_values(ordered, metrics), below)


@dataclass(frozen=True)
class Pool:
    """The seeds of a definition's cells, the run used for each, and its values."""

    cells: Sequence[Cell]
    seeds: Sequence[int]
    hashes: dict[tuple[int, int], str]  # (position of the cell, seed)
    runs: dict[str, int]  # spec hash → run
    values: RunValues
    choice: Choice = field(default_factory=Choice)  # the key of the runs, and the runs left out

    def values_of(self, cell: int, term: Term) -> Values:
        """The term's value for each seed at which the cell's run has all its series."""
        values, runs, missing, problem = {}, {}, [], ""
        for seed in self.seeds:
            run = self.runs.get(self.hashes[cell, seed])
            if run is None:
                missing.append(seed)
            elif (value := self.values.of(run, term)) is not None:
                values[seed], runs[seed] = value, run
            else:
                problem = problem or self.values.lacks(run, term)
        return Values(values, runs, missing, problem)

    def term(self, term: Term) -> Values:
        """The values of a rule's term, which has to select one cell."""
        cells = chosen(self.cells, term)
        if len(cells) == 1:
            return self.values_of(self.cells.index(cells[0]), term)
        where = ", ".join(f"{path} = {value}" for path, value in term.where.items())
        count = f"{len(cells)} variants here have" if cells else "no variant here has"
        return Values(problem=f"{count} {where}")

    def of(self, rule: Rule) -> dict[str, list[Values]]:
        return {claim.id: [self.term(term) for term in claim.terms] for claim in rule.claims}


def gather(
    cells: Sequence[Cell],
    seeds: Iterable[int],
    metrics: Collection[str],
    visible: RunQuerySet,
    prefer: Iterable[int] = (),
    crossings: Collection[tuple[str, float]] = (),
) -> Pool:
    """The runs of these cells at these seeds, and their values. `prefer`: the experiment's own runs."""
    wanted = list(dict.fromkeys(seeds))
    hashes = {cell.hash_at(seed) for cell in cells for seed in wanted}
    choice = choice_of(cells, wanted, candidates(hashes, visible), prefer)
    return pool_of(cells, wanted, choice, measured(choice.runs.values(), metrics, crossings))


def choice_of(
    cells: Iterable[Cell], seeds: Collection[int], known: Iterable[Candidate], prefer: Iterable[int] = ()
) -> Choice:
    """Those of the known runs that have one key."""
    return choose({cell.hash_at(seed): cell.source for cell in cells for seed in seeds}, known, set(prefer))


def pool_of(cells: Sequence[Cell], seeds: Sequence[int], choice: Choice, values: RunValues) -> Pool:
    hashes = {(position, seed): cell.hash_at(seed) for position, cell in enumerate(cells) for seed in seeds}
    return Pool(list(cells), seeds, hashes, choice.runs, values, choice)


def candidates(hashes: Collection[str], visible: RunQuerySet) -> list[Candidate]:
    """The succeeded runs of these specs, oldest first, with any evidence key."""
    ended = visible.filter(spec_hash__in=hashes, state=State.SUCCEEDED).order_by("id")
    parts = Identity.__dataclass_fields__
    rows = ended.values_list("pk", "spec_hash", "parent_step", *parts)
    return [Candidate(pk, key, Identity(*identity), forked=step is not None) for pk, key, step, *identity in rows]
