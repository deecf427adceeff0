"""What was measured: the stored series of succeeded runs that the reader may see, matched by evidence key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from experiments import store
from experiments.identity import Identity
from experiments.models.runs import RunQuerySet
from experiments.states import State

from .cells import Cell, chosen
from .judge import Values
from .keys import Candidate, Choice, choose
from .rules import Rule, Term


@dataclass(frozen=True)
class Pool:
    """The seeds of a definition's cells, the run that stands for each, and what it measured."""

    cells: Sequence[Cell]
    seeds: Sequence[int]
    hashes: dict[tuple[int, int], str]  # (position of the cell, seed)
    runs: dict[str, int]  # spec hash → run
    values: dict[int, dict[str, float]]
    choice: Choice = field(default_factory=Choice)  # the key of the runs, and what other keys were left out

    def values_of(self, at: int, metrics: Sequence[str]) -> Values:
        """The mean of the series for each seed at which the cell's run has all of them."""
        found, runs, missing = {}, {}, []
        for seed in self.seeds:
            run = self.runs.get(self.hashes[at, seed])
            mine = self.values.get(run, {}) if run else {}
            if run is None:
                missing.append(seed)
            elif all(metric in mine for metric in metrics):
                found[seed], runs[seed] = sum(mine[metric] for metric in metrics) / len(metrics), run
        problem = "" if found or missing else f"no run has recorded {' and '.join(metrics)}"
        return Values(found, runs, missing, problem)

    def term(self, term: Term) -> Values:
        """What a rule's term comes to; it has to mean one cell."""
        cells = chosen(self.cells, term)
        if len(cells) == 1:
            return self.values_of(self.cells.index(cells[0]), term.metrics)
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
) -> Pool:
    """The runs that stand for these cells at these seeds, and what they measured, in three queries. `prefer`: the
    experiment's own runs."""
    wanted = sorted(set(seeds))
    choice = choice_of(cells, wanted, candidates({cell.hash_at(s) for cell in cells for s in wanted}, visible), prefer)
    return pool_of(cells, wanted, choice, store.last_values(sorted(choice.runs.values()), metrics))


def choice_of(
    cells: Iterable[Cell], seeds: Collection[int], found: Iterable[Candidate], prefer: Iterable[int] = ()
) -> Choice:
    """Of the found runs those of one key."""
    return choose({cell.hash_at(seed): cell.source for cell in cells for seed in seeds}, found, set(prefer))


def pool_of(cells: Sequence[Cell], seeds: Iterable[int], choice: Choice, values: dict[int, dict[str, float]]) -> Pool:
    ordered = sorted(seeds)
    hashes = {(at, seed): cell.hash_at(seed) for at, cell in enumerate(cells) for seed in ordered}
    return Pool(list(cells), ordered, hashes, choice.runs, values, choice)


def candidates(hashes: Collection[str], visible: RunQuerySet) -> list[Candidate]:
    """The succeeded runs of these specs, oldest first, whatever the rest of their keys."""
    ended = visible.filter(spec_hash__in=hashes, state=State.SUCCEEDED).order_by("id")
    parts = Identity.__dataclass_fields__
    rows = ended.values_list("pk", "spec_hash", "parent_step", *parts)
    return [Candidate(pk, key, Identity(*told), forked=step is not None) for pk, key, step, *told in rows]
