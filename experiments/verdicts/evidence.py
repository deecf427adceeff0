"""What was measured: the stored series of succeeded runs that the reader may see, matched by spec hash."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from experiments import store
from experiments.models.runs import RunQuerySet
from experiments.states import State

from .cells import Cell, chosen
from .judge import Values
from .rules import Rule, Term


@dataclass(frozen=True)
class Pool:
    """The seeds of a definition's cells, the run that stands for each, and what it measured."""

    cells: Sequence[Cell]
    seeds: Sequence[int]
    hashes: dict[tuple[int, int], str]  # (position of the cell, seed)
    runs: dict[str, int]  # spec hash → run
    values: dict[int, dict[str, float]]

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
    """The runs that stand for these cells at these seeds, and what they measured, in three queries."""
    wanted = set(seeds)
    runs, values = found_runs({cell.hash_at(seed) for cell in cells for seed in wanted}, metrics, visible, prefer)
    return pool_of(cells, wanted, runs, values)


def pool_of(
    cells: Sequence[Cell], seeds: Iterable[int], runs: dict[str, int], values: dict[int, dict[str, float]]
) -> Pool:
    ordered = sorted(seeds)
    hashes = {(at, seed): cell.hash_at(seed) for at, cell in enumerate(cells) for seed in ordered}
    return Pool(list(cells), ordered, hashes, runs, values)


def found_runs(
    hashes: Collection[str], metrics: Collection[str], visible: RunQuerySet, prefer: Iterable[int] = ()
) -> tuple[dict[str, int], dict[int, dict[str, float]]]:
    """Spec hash → run, and run → series → last value. Of several runs with one hash, which trained to the same
    result, the experiment's own (`prefer`) stands for all, else the first."""
    ended = visible.filter(spec_hash__in=hashes, state=State.SUCCEEDED).order_by("id")
    own, runs = set(prefer), dict[str, int]()
    for pk, spec_hash in ended.values_list("pk", "spec_hash"):
        if spec_hash not in runs or (pk in own and runs[spec_hash] not in own):
            runs[spec_hash] = pk
    return runs, store.last_values(sorted(runs.values()), metrics)
