"""The cells of a definition: what a preset or an experiment trains, apart from the seed. Pure.

A cell and a seed give a spec hash. Succeeded runs with that hash count, whoever submitted them and for whatever
preset, as far as the rest of their keys agrees (keys.py): then they are the same training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from experiments.spec import Spec, content_hash, flatten, resolved
from experiments.spec.sections.plugins import needs
from experiments.submissions.presets import presets
from experiments.submissions.submission import plan

from .rules import Term


@dataclass(frozen=True, eq=False)
class Cell:
    """One variant: its spec apart from the seed, and its values of the matrix. Compared by identity."""

    params: Mapping[str, Any]
    spec: Spec
    leaves: Mapping[str, Any]

    def hash_at(self, seed: int) -> str:
        return _hash_at(self, seed)

    @property
    def source(self) -> tuple[Any, ...]:
        """The origin of its data and of packages' code: cells of one source read the same files."""
        read = self.leaves.get("data.path"), self.leaves.get("model.path"), *sorted(needs(resolved(self.spec)))
        if any(read):
            return read
        return tuple((path, repr(value)) for path, value in self.leaves.items() if path.startswith("data."))


@lru_cache(maxsize=10_000)
def _hash_at(cell: Cell, seed: int) -> str:
    """Cached, since the gallery needs those of hundreds of cells at every visit."""
    return content_hash(cell.spec.model_copy(update={"seed": seed}))


def cells_of(specs: Iterable[tuple[Mapping[str, Any], Spec]]) -> list[Cell]:
    """The different cells among specs of several seeds, in order; `params` are those of the first."""
    cells: dict[str, Cell] = {}
    for params, spec in specs:
        bare = spec.model_copy(update={"seed": 0})
        key = content_hash(bare)
        if key not in cells:
            cells[key] = Cell(params, bare, dict(flatten(resolved(bare))))
    return list(cells.values())


@cache
def preset_cells(name: str) -> list[Cell]:
    """The cells of the unchanged preset; empty where there is no such preset."""
    if name not in presets():
        return []
    planned = plan({"name": name, "preset": name, "seeds": [0]}, max_runs=10_000)
    return cells_of((run.params, run.spec) for run in planned.runs)


def chosen(cells: Iterable[Cell], term: Term) -> list[Cell]:
    """The cells that a term selects; in a correct rule it is one."""
    return [cell for cell in cells if term.selects(cell.leaves)]
