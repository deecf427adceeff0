"""The parts of a plan: the further definitions of a preset, and which of them a submission leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.spec import Spec, content_hash, resolved

from .blame import same_branch
from .body import SubmissionError
from .matrix import MatrixCell, Setting
from .presets import Also
from .resolving import Resolver


@dataclass(frozen=True)
class PlannedRun:
    """One cell of matrix × seeds with its resolved spec."""

    index: int
    seed: int
    params: dict[str, Any]
    spec: Spec

    @property
    def spec_hash(self) -> str:
        return content_hash(self.spec)


@dataclass(frozen=True)
class PlannedPart:
    """One definition of a plan, and the number of its variants."""

    task: str
    variants: int


@dataclass(frozen=True)
class LeftOut:
    """Runs of a preset that a submission does not train, and the reason."""

    runs: int
    task: str
    reason: str

    @property
    def text(self) -> str:
        """As a sentence without its full stop."""
        runs, are = ("run", "is") if self.runs == 1 else ("runs", "are")
        return f"{self.runs} {runs} of task {self.task}, a further part of the preset, {are} left out: {self.reason}"


@dataclass
class Parts:
    """The runs of a plan, part by part. `fixed` (overrides and pool) applies to every cell of every part."""

    seeds: list[int]
    fixed: tuple[Setting, ...]
    runs: list[PlannedRun] = field(default_factory=list)
    trained: list[PlannedPart] = field(default_factory=list)
    also: list[Also] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def begin(self, spec: Spec, cells: list[MatrixCell]) -> None:
        """Start with the first definition's runs."""
        self.runs = list(_expanded(cells, self.seeds))
        self.trained = [PlannedPart(spec.task, len(cells))]

    def join(self, also: Also) -> None:
        """Append the definition's runs. They are left out where `fixed` is invalid in them or an equal run exists."""
        resolver = Resolver(also.spec, self.fixed, of_preset=True)
        try:
            spec, cells = resolver.resolve({}), resolver.cells(also.matrix)
        except SubmissionError as error:
            first = error.errors[0]
            self.leave_out(also, f"{first.path[-1]} is invalid in it: {first.message}")
            return
        new = self._new(cells)
        if new:
            self._place(spec, new)
            self.also.append(self._defined(also, spec))
        if equal := len(cells) * len(self.seeds) - len(new):
            self.leave_out(also, "with these values they equal runs of another part", equal)

    def leave_out(self, also: Also, reason: str, runs: int | None = None) -> None:
        """Record that the definition's runs, or `runs` of them, are left out."""
        count = math.prod(map(len, also.matrix.values())) * len(self.seeds) if runs is None else runs
        self.left_out.append(LeftOut(count, str(also.spec["task"]), reason))

    def _new(self, cells: list[MatrixCell]) -> list[PlannedRun]:
        """The cells' runs that no earlier part has, each once."""
        known = {run.spec_hash for run in self.runs}
        runs = {run.spec_hash: run for run in reversed(list(_expanded(cells, self.seeds)))}
        return [run for spec_hash, run in reversed(runs.items()) if spec_hash not in known]

    def _place(self, spec: Spec, new: list[PlannedRun]) -> None:
        """Append runs; their parameters name the task where it differs from the first part's."""
        task = {"task": spec.task} if spec.task != self.trained[0].task else {}
        start = len(self.runs)
        self.runs += [replace(run, index=start + number, params=task | run.params) for number, run in enumerate(new)]
        self.trained.append(
            PlannedPart(spec.task, len({content_hash(run.spec.model_copy(update={"seed": 0})) for run in new}))
        )

    def _defined(self, also: Also, spec: Spec) -> Also:
        """The definition for the plan's hash: as the preset spells it where no override changes it, else as it was
        resolved, so that two spellings of an override have one hash."""
        pool = tuple(setting for setting in self.fixed if setting.place == "pool")
        untouched = Resolver(also.spec, pool, of_preset=True).resolve({})
        return also if content_hash(untouched) == content_hash(spec) else Also(spec=resolved(spec), matrix=also.matrix)


def why_not(also: Also, overrides: Iterable[str], matrix: Mapping[str, Any], preset: Mapping[str, Any]) -> str:
    """Why the definition is left out, or "": the matrix is not the preset's, or an override sets a field that the
    definition varies itself."""
    if matrix != preset:
        return "the matrix is not the preset's own"
    varied = next((path for path in overrides if any(same_branch(path, key) for key in also.matrix)), None)
    return f"it varies {varied} itself" if varied else ""


def _expanded(cells: list[MatrixCell], seeds: list[int]) -> Iterator[PlannedRun]:
    index = 0
    for cell in cells:
        for seed in seeds:
            yield PlannedRun(index, seed, cell.params, cell.spec.model_copy(update={"seed": seed}))
            index += 1
