"""What was measured: the stored series of succeeded runs that the reader may see, matched by spec hash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    metrics: Sequence[str],
    visible: RunQuerySet,
    prefer: Iterable[int] = (),
) -> Pool:
    """Find the runs in three queries. Of several with one hash, which trained to the same result, the experiment's
    own (`prefer`) stands for all, else the first."""
    ordered = sorted(set(seeds))
    hashes = {(at, seed): cell.hash_at(seed) for at, cell in enumerate(cells) for seed in ordered}
    ended = visible.filter(spec_hash__in=set(hashes.values()), state=State.SUCCEEDED).order_by("id")
    own = set(prefer)
    runs: dict[str, int] = {}
    for pk, spec_hash in ended.values_list("pk", "spec_hash"):
        if spec_hash not in runs or (pk in own and runs[spec_hash] not in own):
            runs[spec_hash] = pk
    return Pool(list(cells), ordered, hashes, runs, store.last_values(sorted(runs.values()), metrics))
