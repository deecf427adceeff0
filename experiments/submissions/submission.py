"""From a submission to its runs. Pure: nothing is stored here.

The form, REST and validation share `plan`, so errors read the same everywhere.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.spec import FieldError, Spec, resolved
from experiments.spec.errors import did_you_mean
from experiments.spec.inert import dropped_seed, is_whole, unused

from .body import MAX_DIMENSIONS, MAX_OVERRIDES, MAX_SEEDS, Seed, Submission, SubmissionError, parse
from .matrix import OF_PRESET, MatrixCell, Setting, listed_twice, same_cells, set_twice, sets
from .parts import LeftOut, Parts, PlannedPart, PlannedRun, why_not
from .presets import Also, presets
from .resolving import Resolver

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
class Plan:
    """A valid submission, expanded. `left_out` lists the runs of its preset that it does not train."""

    submission: Submission
    spec: Spec
    matrix: dict[str, list[Any]]
    seeds: list[int]
    runs: list[PlannedRun]
    parts: tuple[PlannedPart, ...]
    also: tuple[Also, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def pool(self) -> str:
        return self.spec.resources.pool

    @property
    def spec_hash(self) -> str:
        """SHA-256 of the definition: base spec, matrix and seeds."""
        whole = [
            resolved(self.spec),
            self.matrix,
            self.seeds,
            *([further.spec, further.matrix] for further in self.also),
        ]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def request_digest(self, project_id: int) -> str:
        """SHA-256 of everything requested, notes and tags included, in resolved form: spelling does not matter."""
        request = self.submission.model_dump(mode="json", exclude={"project", "spec", "overrides", "matrix", "seeds"})
        whole = [self.spec_hash, list(self.matrix), project_id, request]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def plan(raw: Mapping[str, Any], *, max_runs: int = 1000, stored: bool = False, inherited: bool = False) -> Plan:
    """Validate a submission and expand it. Raises SubmissionError that names every wrong field. `stored`: its spec was
    accepted before and is read as it was trained; `inherited`: settings without effect may stay in it."""
    submission = _parsed(raw, max_runs)
    base, matrix, seeds = _starting_point(submission)
    fixed = tuple(_fixed(submission))
    resolver = Resolver(base, fixed, of_preset=submission.preset is not None, stored=stored)
    spec, cells = _checked(resolver, submission, matrix, len(seeds), max_runs)
    parts = Parts(seeds or [spec.seed], fixed)
    parts.begin(spec, cells)
    _join_further(parts, submission, matrix)
    _refuse_unused(parts, cells, submission, inherited or stored)
    if errors := _size_errors(len(parts.runs), matrix, max_runs):
        raise SubmissionError(errors)
    whole = (parts.runs, tuple(parts.trained), tuple(parts.also), tuple(parts.left_out))
    return Plan(submission, spec, _values(cells, matrix), parts.seeds, *whole)


def _refuse_unused(parts: Parts, cells: list[MatrixCell], submission: Submission, inherited: bool) -> None:
    """Raises SubmissionError with the settings that have no effect in any run; a resolved base is not checked."""
    base, spec = submission.spec, cells[0].spec
    errors = _without_effect(parts.runs, submission)
    if inherited or base is None or is_whole(base, spec):
        errors = [error for error in errors if error.path[0] != "spec"]
    if base is not None and not inherited:
        errors += dropped_seed(spec, submission.seeds)
    if errors:
        raise SubmissionError(errors)


def _without_effect(runs: list[PlannedRun], submission: Submission) -> list[FieldError]:
    settings = [*_alternatives("matrix", submission.matrix), *_fixed(submission)]
    specs = [run.spec for run in runs if run.seed == runs[0].seed]
    return [_located(error, settings) for error in unused(specs)]


def _located(error: FieldError, settings: list[Setting]) -> FieldError:
    """The error at the setting that causes it, else at the spec's field."""
    for setting in settings:
        if sets(setting, error.dotted):
            field = "" if setting.path == error.dotted else f"{error.dotted}: "
            return FieldError(setting.location, f"{field}{error.message}")
    return FieldError(("spec", *error.path), error.message)


def _parsed(raw: Mapping[str, Any], max_runs: int) -> Submission:
    """The body; where a part of it is wrong, the errors of the rest are reported as well."""
    try:
        return parse(raw)
    except SubmissionError as error:
        raise SubmissionError([*error.errors, *_errors_of_the_rest(raw, error.errors, max_runs)]) from None


def _errors_of_the_rest(raw: Mapping[str, Any], wrong: list[FieldError], max_runs: int) -> list[FieldError]:
    """Further errors: the submission is checked again without the fields that could not be read."""
    readable = _without(raw, {str(error.path[0]) for error in wrong if error.path})
    if readable.keys() & {"preset", "spec"}:
        try:
            plan({"name": "unnamed"} | readable, max_runs=max_runs)
        except SubmissionError as error:
            return [further for further in error.errors if further not in wrong]
    return []


def _without(raw: Mapping[str, Any], unreadable: set[str]) -> dict[str, Any]:
    """The fields that could be read; none where no field is to blame."""
    return {name: raw[name] for name in raw if unreadable and name not in unreadable and raw[name] is not None}


def _checked(
    resolver: Resolver, submission: Submission, matrix: Mapping[str, list[Any]], seeds: int, max_runs: int
) -> tuple[Spec, list[MatrixCell]]:
    """The base spec and every cell, resolved. Raises SubmissionError with the errors of all of them."""
    errors = _path_errors(submission, matrix)
    too_many = _size_errors(math.prod(map(len, matrix.values())) * max(1, seeds), matrix, max_runs)
    spec, cells = None, []
    try:
        spec = resolver.resolve({})
    except SubmissionError as error:
        errors += error.errors
    try:
        cells = [] if too_many else resolver.cells(matrix)
    except SubmissionError as error:
        errors += error.errors
    errors = errors + too_many or same_cells(cells)
    if errors or spec is None:
        raise SubmissionError(_one_per_field(errors))
    return spec, cells


def _one_per_field(errors: list[FieldError]) -> list[FieldError]:
    """The first error at each field: two checks of one list may report the same problem."""
    first = {error.path: error for error in reversed(errors)}
    return [error for error in errors if first[error.path] is error]


def _starting_point(submission: Submission) -> tuple[dict[str, Any], dict[str, list[Any]], list[int]]:
    """Copy of the base spec, matrix and seeds: the preset's unless the submission has its own. No seeds mean the
    spec's own seed."""
    if submission.spec is not None:
        base = copy.deepcopy(submission.spec)
        return base, submission.matrix, submission.seeds
    known = presets()
    preset = known.get(submission.preset or "")
    if preset is None:
        hint = did_you_mean(submission.preset or "", known) or f"; known: {', '.join(known)}"
        raise SubmissionError([FieldError(("preset",), f"unknown preset '{submission.preset}'{hint}")])
    matrix = submission.matrix if "matrix" in submission.model_fields_set else preset.matrix
    return copy.deepcopy(preset.spec), matrix, submission.seeds or preset.seeds


def _join_further(parts: Parts, submission: Submission, matrix: Mapping[str, list[Any]]) -> None:
    """Add the further definitions of a preset."""
    preset = presets().get(submission.preset or "")
    for also in preset.also if preset else ():
        if preset and (reason := why_not(also, submission.overrides, matrix, preset.matrix)):
            parts.leave_out(also, reason)
        else:
            parts.join(also)


def _path_errors(submission: Submission, matrix: Mapping[str, list[Any]]) -> list[FieldError]:
    places = [name for name in ("overrides", "matrix") if "seed" in getattr(submission, name)]
    errors = [FieldError((place, "seed"), "seeds have their own field: put them in `seeds`") for place in places]
    errors += _at_lists(submission.matrix, operator.not_, "list at least one value")
    errors += _at_lists(submission.matrix, listed_twice, "lists a value twice")
    if len(set(submission.seeds)) < len(submission.seeds):
        errors.append(FieldError(("seeds",), "lists a seed twice"))
    place = "matrix" if "matrix" in submission.model_fields_set or submission.preset is None else OF_PRESET
    return errors + set_twice([*_fixed(submission), *_alternatives(place, matrix)])


def _at_lists(matrix: Mapping[str, list[Any]], is_wrong: Callable[[list[Any]], bool], message: str) -> list[FieldError]:
    return [FieldError(("matrix", path), message) for path, values in matrix.items() if is_wrong(values)]


def _alternatives(place: str, matrix: Mapping[str, list[Any]]) -> list[Setting]:
    return [Setting(place, path, value) for path, values in matrix.items() for value in values]


def _size_errors(count: int, matrix: Mapping[str, list[Any]], max_runs: int) -> list[FieldError]:
    """Counts the runs before expanding them, so that a matrix of a million runs costs nothing."""
    if count <= max_runs:
        return []
    message = f"expands to {count:,} runs; at most {max_runs:,} are allowed in one experiment"
    return [FieldError(("matrix" if matrix else "seeds",), message)]


def _fixed(submission: Submission) -> list[Setting]:
    """The settings of every cell: overrides and pool."""
    pool = [] if submission.pool is None else [Setting("pool", "resources.pool", submission.pool)]
    return [*(Setting("overrides", path, value) for path, value in submission.overrides.items()), *pool]


def _values(cells: list[MatrixCell], matrix: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The matrix with each value as it was resolved."""
    lists: dict[str, list[Any]] = {}
    for path, values in matrix.items():
        known = {json.dumps(cell.written[path], sort_keys=True): cell.params[path] for cell in reversed(cells)}
        lists[path] = [known[json.dumps(value, sort_keys=True)] for value in values]
    return lists
