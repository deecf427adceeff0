"""From what a person sends to the runs it means. Pure: nothing is stored here.

The same `plan` serves the form, REST and validation, so an error reads the same everywhere.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .matrix import (
    OF_PRESET,
    Cell,
    Setting,
    Unreachable,
    applied,
    combinations,
    listed_twice,
    params_of,
    same_cells,
    says,
    set_twice,
)
from .presets import Also, presets
from .sections.base import scalar
from .spec import FieldError, Spec, SpecError, content_hash, parse_spec, resolved
from .submission_body import MAX_DIMENSIONS, MAX_OVERRIDES, MAX_SEEDS, Seed, Submission, SubmissionError, parse

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_OVERRIDES",
    "MAX_SEEDS",
    "Plan",
    "PlannedRun",
    "Seed",
    "Submission",
    "SubmissionError",
    "plan",
]


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
class Plan:
    """A valid submission, expanded."""

    submission: Submission
    spec: Spec
    matrix: dict[str, list[Any]]
    seeds: list[int]
    runs: list[PlannedRun]
    also: tuple[Also, ...] = ()
    left_out: tuple[Also, ...] = ()  # what the preset brings besides, where this submission changes the preset

    @property
    def warning(self) -> str:
        """What the submission leaves out of its preset, in a sentence; empty where that is nothing."""
        parts = [f"{_count([one.matrix], self.seeds)} runs of task {one.spec['task']}" for one in self.left_out]
        if not parts:
            return ""
        changed = "overrides change the preset" if self.submission.overrides else "the matrix is not the preset's"
        return f"The preset's further part is left out ({', '.join(parts)}), because {changed}."

    @property
    def pool(self) -> str:
        return self.spec.resources.pool

    @property
    def spec_hash(self) -> str:
        """SHA-256 of the definition: base spec, matrix and seeds."""
        whole = [resolved(self.spec), self.matrix, self.seeds, *([one.spec, one.matrix] for one in self.also)]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def request_digest(self, project_id: int) -> str:
        """SHA-256 of everything that was asked for, notes and tags too, in whatever spelling: what it came to."""
        asked = self.submission.model_dump(mode="json", exclude={"project", "spec", "overrides", "matrix", "seeds"})
        whole = [self.spec_hash, list(self.matrix), project_id, asked]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def plan(raw: Mapping[str, Any], *, max_runs: int = 1000, stored: bool = False) -> Plan:
    """Validate a submission and expand it. Raises SubmissionError that names every bad field. `stored` says that its
    spec was accepted before and is read as it was trained."""
    submission = _parsed(raw)
    base, matrix, seeds = _starting_point(submission)
    _check_paths(submission, matrix)
    also, left_out = _further(submission, matrix)
    _check_size([matrix, *(one.matrix for one in also)], seeds, max_runs)
    spec, wrong = _base(base, submission, stored=stored)
    cells = list(_cells(base, submission, matrix, wrong, stored=stored))
    if spec is None or wrong:
        raise SubmissionError(wrong)
    runs = list(_runs(cells, seeds or [spec.seed]))
    for one in also:
        runs += _expand_also(one, submission, spec, seeds, len(runs))
    return Plan(submission, spec, _values(cells, matrix), seeds or [spec.seed], runs, also, left_out)


def _parsed(raw: Mapping[str, Any]) -> Submission:
    """The body; where a part of it is wrong, the error tells what is wrong in the rest as well."""
    try:
        return parse(raw)
    except SubmissionError as error:
        bad = {item.path[0] for item in error.errors if item.path}
        rest = {key: value for key, value in raw.items() if key not in bad} | {"name": "unnamed"}
        given = [name for name in ("preset", "spec") if rest.get(name) is not None]
        if len(given) != 1 or not bad or "\0" in str(raw):
            raise
        try:
            plan(rest)
        except SubmissionError as more:
            raise SubmissionError([*error.errors, *more.errors]) from None
        raise


def _base(raw: Mapping[str, Any], submission: Submission, *, stored: bool) -> tuple[Spec | None, list[FieldError]]:
    """The base spec, or what is wrong in it without any value of the matrix."""
    try:
        return _resolve(raw, submission, {}, stored=stored), []
    except SubmissionError as error:
        return None, error.errors


def _starting_point(submission: Submission) -> tuple[dict[str, Any], dict[str, list[Any]], list[int]]:
    """Base spec as a private copy, matrix and seeds: the preset's unless the submission brings its own. Without any
    seeds the spec's own seed is meant."""
    if submission.spec is not None:
        base = copy.deepcopy(submission.spec)
        return base, submission.matrix, submission.seeds
    known = presets()
    preset = known.get(submission.preset or "")
    if preset is None:
        close = difflib.get_close_matches(submission.preset or "", list(known), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"
        raise SubmissionError([FieldError(("preset",), f"unknown preset '{submission.preset}'{hint}")])
    matrix = submission.matrix if "matrix" in submission.model_fields_set else preset.matrix
    return copy.deepcopy(preset.spec), matrix, submission.seeds or preset.seeds


def _further(submission: Submission, matrix: Mapping[str, list[Any]]) -> tuple[tuple[Also, ...], tuple[Also, ...]]:
    """What a preset brings besides, and what of it is left out: it comes as long as the preset is submitted as it
    stands; seeds and pool may differ."""
    preset = presets().get(submission.preset or "")
    if preset is None:
        return (), ()
    further = tuple(preset.also)
    return ((), further) if submission.overrides or matrix != preset.matrix else (further, ())


def _check_paths(submission: Submission, matrix: Mapping[str, list[Any]]) -> None:
    errors = [
        FieldError((place, path), "seeds have their own field: put them in `seeds`")
        for place, paths in (("overrides", submission.overrides), ("matrix", submission.matrix))
        for path in paths
        if path == "seed"
    ]
    errors += [
        FieldError(("matrix", path), "list at least one value")
        for path, values in submission.matrix.items()
        if not values
    ]
    errors += [
        FieldError(("matrix", path), "lists a value twice")
        for path, values in submission.matrix.items()
        if listed_twice(values)
    ]
    if len(set(submission.seeds)) < len(submission.seeds):
        errors.append(FieldError(("seeds",), "lists a seed twice"))
    place = "matrix" if "matrix" in submission.model_fields_set or submission.preset is None else OF_PRESET
    alternatives = [Setting(place, path, value) for path, values in matrix.items() for value in values]
    errors += set_twice([*_fixed(submission), *alternatives])
    if errors:
        raise SubmissionError(errors)


def _check_size(matrices: list[Mapping[str, list[Any]]], seeds: list[int], max_runs: int) -> None:
    """Counted before anything is expanded: a matrix of a million runs costs nothing."""
    count = _count(matrices, seeds)
    if count > max_runs:
        at = "matrix" if matrices[0] else "seeds"
        message = f"expands to {count:,} runs; at most {max_runs:,} are allowed in one experiment"
        raise SubmissionError([FieldError((at,), message)])


def _count(matrices: list[Mapping[str, list[Any]]] | list[dict[str, list[Any]]], seeds: list[int]) -> int:
    return sum(math.prod(len(values) for values in matrix.values()) for matrix in matrices) * max(1, len(seeds))


def _fixed(submission: Submission) -> list[Setting]:
    """What every cell is given: the overrides, and the pool."""
    pool = [] if submission.pool is None else [Setting("pool", "resources.pool", submission.pool)]
    return [*(Setting("overrides", path, value) for path, value in submission.overrides.items()), *pool]


def _cells(
    base: Mapping[str, Any],
    submission: Submission,
    matrix: Mapping[str, list[Any]],
    wrong: list[FieldError],
    *,
    stored: bool = False,
) -> list[Cell]:
    """Every combination of the matrix's values, resolved. Raises SubmissionError with what is wrong in any of them,
    after what is `wrong` in the base already."""
    cells: list[Cell] = []
    errors = {item.path: item for item in wrong}
    for written in combinations(matrix):
        try:
            spec = _resolve(base, submission, written, stored=stored)
        except SubmissionError as error:
            for item in error.errors:
                if item.path not in errors:
                    told = item if item.path[0] == "matrix" or wrong else _blamed(item, base, submission, written)
                    errors.setdefault(told.path, told)
        else:
            cells.append(Cell(written, params_of(written, spec), spec))
    if found := list(errors.values()) or same_cells(cells):
        raise SubmissionError(found)
    return cells


def _blamed(
    error: FieldError, base: Mapping[str, Any], submission: Submission, written: Mapping[str, Any]
) -> FieldError:
    """An error in a field that the base alone does not have: at the path of the matrix whose value causes it, or at
    the matrix where it takes several."""
    for path, value in written.items():
        try:
            _resolve(base, submission, {path: value}, stored=False)
        except SubmissionError as alone:
            if any(item.path == error.path for item in alone.errors):
                return FieldError(("matrix", path), f"{error.dotted}: {error.message} (value {value!r})")
    return FieldError(("matrix",), f"{error.dotted}: {error.message} (at {dict(written)!r})")


def _runs(cells: list[Cell], seeds: list[int]) -> Iterator[PlannedRun]:
    index = 0
    for cell in cells:
        for seed in seeds:
            yield PlannedRun(index, seed, cell.params, cell.spec.model_copy(update={"seed": seed}))
            index += 1


def _values(cells: list[Cell], matrix: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The matrix with each value as it was resolved."""
    found: dict[str, list[Any]] = {}
    for path, values in matrix.items():
        meant = {json.dumps(cell.written[path], sort_keys=True): cell.params[path] for cell in reversed(cells)}
        found[path] = [meant[json.dumps(value, sort_keys=True)] for value in values]
    return found


def _expand_also(one: Also, submission: Submission, main: Spec, seeds: list[int], start: int) -> Iterator[PlannedRun]:
    """The second definition's runs, after `start` others; their parameters say which task they belong to."""
    for run in _runs(_cells(one.spec, submission, one.matrix, []), seeds or [main.seed]):
        task = {"task": run.spec.task} if run.spec.task != main.task else {}
        yield dataclasses.replace(run, index=start + run.index, params=task | run.params)


def _resolve(raw: Mapping[str, Any], submission: Submission, written: Mapping[str, Any], *, stored: bool) -> Spec:
    settings = [*_fixed(submission), *(Setting("matrix", path, value) for path, value in written.items())]
    try:
        tree = applied(raw, settings)
        if submission.preset is not None and not any(says(one, "optimizer.warmup_steps") for one in settings):
            _shorten_warm_up(tree)
        return parse_spec(tree, stored=stored)
    except Unreachable as error:
        raise SubmissionError([error.error]) from None
    except SpecError as error:
        raise SubmissionError([_attribute(item, submission, written) for item in error.errors]) from None


def _shorten_warm_up(tree: dict[str, Any]) -> None:
    """A preset that is made shorter than its warm-up warms up all the way, since nobody asked for another one."""
    optimizer, train = tree.get("optimizer"), tree.get("train")
    if not isinstance(optimizer, dict) or not isinstance(train, dict):
        return
    warm_up, steps = optimizer.get("warmup_steps"), scalar(train.get("steps"), int)
    if isinstance(warm_up, int) and isinstance(steps, int) and warm_up > steps > 0:
        optimizer["warmup_steps"] = steps


def _attribute(error: FieldError, submission: Submission, params: Mapping[str, Any]) -> FieldError:
    """Point at what the person wrote: the matrix entry, the override, or the spec's field."""
    dotted = error.dotted
    for place, keys in (("matrix", params), ("overrides", submission.overrides)):
        for key in keys:
            if dotted == key or dotted.startswith(f"{key}.") or key.startswith(f"{dotted}."):
                value = f" (value {params[key]!r})" if place == "matrix" else ""
                return FieldError((place, key), error.message + value)
    if dotted == "resources.pool" and submission.pool is not None:
        return FieldError(("pool",), error.message)
    return FieldError(("spec", *error.path), error.message)
