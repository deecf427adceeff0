"""What was measured: the stored series of succeeded runs that the reader may see, matched by evidence key."""

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
class Measured:
    """What terms read of runs: the last value of series, and the first step at which one lies below a value."""

    last: dict[int, dict[str, float]] = field(default_factory=dict)  # run → series → value
    first_below: dict[tuple[str, float], dict[int, int | None]] = field(default_factory=dict)

    def of(self, run: int, term: Term) -> float | None:
        """None where the run cannot tell."""
        if term.below is not None:
            return self.first_below.get((term.metrics[0], term.below), {}).get(run)
        mine = self.last.get(run, {})
        if not all(name in mine for name in term.last):
            return None
        base = sum(mine[name] for name in term.minus) / len(term.minus) if term.minus else 0.0
        return sum(mine[name] for name in term.metrics) / len(term.metrics) - base

    def lacks(self, run: int, term: Term) -> str:
        """Why it cannot."""
        if term.below is None:
            lacking = [name for name in term.last if name not in self.last.get(run, {})]
            return f"run {run} has no finite {' and '.join(lacking)}"
        if run in self.first_below.get((term.metrics[0], term.below), {}):
            return (
                f"run {run} never came below {term.below:g} in {term.metrics[0]}: nobody knows how many steps it takes"
            )
        return f"run {run} has not kept every point of {term.metrics[0]}"


def measured(runs: Collection[int], metrics: Collection[str], crossings: Collection[tuple[str, float]]) -> Measured:
    ordered = sorted(runs)
    below = {(name, bound): store.first_below(ordered, name, bound) for name, bound in crossings}
    return Measured(store.last_values(ordered, metrics), below)


@dataclass(frozen=True)
class Pool:
    """The seeds of a definition's cells, the run that stands for each, and what it measured."""

    cells: Sequence[Cell]
    seeds: Sequence[int]
    hashes: dict[tuple[int, int], str]  # (position of the cell, seed)
    runs: dict[str, int]  # spec hash → run
    values: Measured
    choice: Choice = field(default_factory=Choice)  # the key of the runs, and what other keys were left out

    def values_of(self, at: int, term: Term) -> Values:
        """What the term comes to for each seed at which the cell's run has all its series."""
        found, runs, missing, problem = {}, {}, [], ""
        for seed in self.seeds:
            run = self.runs.get(self.hashes[at, seed])
            if run is None:
                missing.append(seed)
            elif (value := self.values.of(run, term)) is not None:
                found[seed], runs[seed] = value, run
            else:
                problem = problem or self.values.lacks(run, term)
        return Values(found, runs, missing, problem)

    def term(self, term: Term) -> Values:
        """What a rule's term comes to; it has to mean one cell."""
        cells = chosen(self.cells, term)
        if len(cells) == 1:
            return self.values_of(self.cells.index(cells[0]), term)
        where = ", ".join(f"{path} = {value}" for path, value in term.where.items())
        count = f"{len(cells)} variants here have" if cells else "no variant here has"
        return Values(problem=f"{count} {where}")

    def of(self, rule: Rule) -> dict[str, list[Values]]:
        return {one.id: [self.term(term) for term in one.terms] for one in rule.claims}


def gather(
    cells: Sequence[Cell],
    seeds: Iterable[int],
    metrics: Collection[str],
    visible: RunQuerySet,
    prefer: Iterable[int] = (),
    crossings: Collection[tuple[str, float]] = (),
) -> Pool:
    """The runs that stand for these cells at these seeds, and what they measured. `prefer`: the experiment's own
    runs."""
    wanted = list(dict.fromkeys(seeds))
    choice = choice_of(cells, wanted, candidates({cell.hash_at(s) for cell in cells for s in wanted}, visible), prefer)
    return pool_of(cells, wanted, choice, measured(choice.runs.values(), metrics, crossings))


def choice_of(
    cells: Iterable[Cell], seeds: Collection[int], found: Iterable[Candidate], prefer: Iterable[int] = ()
) -> Choice:
    """Of the found runs those of one key."""
    return choose({cell.hash_at(seed): cell.source for cell in cells for seed in seeds}, found, set(prefer))


def pool_of(cells: Sequence[Cell], seeds: Sequence[int], choice: Choice, values: Measured) -> Pool:
    hashes = {(at, seed): cell.hash_at(seed) for at, cell in enumerate(cells) for seed in seeds}
    return Pool(list(cells), seeds, hashes, choice.runs, values, choice)


def candidates(hashes: Collection[str], visible: RunQuerySet) -> list[Candidate]:
    """The succeeded runs of these specs, oldest first, whatever the rest of their keys."""
    ended = visible.filter(spec_hash__in=hashes, state=State.SUCCEEDED).order_by("id")
    parts = Identity.__dataclass_fields__
    rows = ended.values_list("pk", "spec_hash", "parent_step", *parts)
    return [Candidate(pk, key, Identity(*told), forked=step is not None) for pk, key, step, *told in rows]
