"""From a raw spec and what is set in it to resolved specs, with errors where a person wrote what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.spec import FieldError, Spec, SpecError, parse_spec
from experiments.spec.sections.base import scalar

from .blame import Blame, same_branch
from .body import SubmissionError
from .matrix import MatrixCell, Setting, Unreachable, applied, combinations, params_of, says


@dataclass(frozen=True)
class Resolver:
    """A base spec with what every cell is given: overrides and pool. `of_preset`: a preset brought the base."""

    base: Mapping[str, Any]
    fixed: tuple[Setting, ...]
    of_preset: bool
    stored: bool = False

    def resolve(self, written: Mapping[str, Any]) -> Spec:
        """The spec of the cell with these values. Raises SubmissionError that points at what was written."""
        try:
            return parse_spec(self._tree(self.fixed, written), stored=self.stored)
        except Unreachable as error:
            raise SubmissionError([error.error]) from None
        except SpecError as error:
            raise SubmissionError([self._written(item, written) for item in error.errors]) from None

    def cells(self, matrix: Mapping[str, list[Any]]) -> list[MatrixCell]:
        """Every combination of the matrix's values. Raises SubmissionError with what is wrong in any of them."""
        cells: list[MatrixCell] = []
        errors: dict[tuple[str | int, ...], FieldError] = {}
        for written in combinations(matrix):
            try:
                spec = self.resolve(written)
            except SubmissionError as error:
                for item in error.errors:
                    errors.setdefault(item.path, item)
            else:
                cells.append(MatrixCell(written, params_of(written, spec), spec))
        if errors:
            raise SubmissionError(list(errors.values()))
        return cells

    def _tree(self, fixed: tuple[Setting, ...], written: Mapping[str, Any]) -> dict[str, Any]:
        settings = [*fixed, *(Setting("matrix", path, value) for path, value in written.items())]
        tree = applied(self.base, settings)
        if self.of_preset and not any(says(one, "optimizer.warmup_steps") for one in settings):
            _shorten_warm_up(tree)
        return tree

    def _written(self, error: FieldError, written: Mapping[str, Any]) -> FieldError:
        """At the matrix entry, the override, the pool, or the spec's field."""
        if path := self._blame_matrix.of(error, written):
            return FieldError(("matrix", path), f"{_told(error, path)} (value {written[path]!r})")
        overrides = {one.path: one.value for one in self.fixed if one.place == "overrides"}
        if path := self._blame_overrides.of(error, overrides):
            return FieldError(("overrides", path), _told(error, path))
        if any(one.place == "pool" and same_branch(one.path, error.dotted) for one in self.fixed):
            return FieldError(("pool",), error.message)
        return FieldError(("spec", *error.path), error.message)

    @cached_property
    def _blame_matrix(self) -> Blame:
        return Blame(lambda values: self._wrong(self.fixed, values))

    @cached_property
    def _blame_overrides(self) -> Blame:
        pool = [one for one in self.fixed if one.place != "overrides"]
        return Blame(
            lambda values: self._wrong((*pool, *(Setting("overrides", at, value) for at, value in values.items())), {})
        )

    def _wrong(self, fixed: tuple[Setting, ...], written: Mapping[str, Any]) -> list[FieldError]:
        try:
            parse_spec(self._tree(fixed, written), stored=self.stored)
        except Unreachable as error:
            return [error.error]
        except SpecError as error:
            return error.errors
        return []


def _told(error: FieldError, path: str) -> str:
    """The message at another field than the one that the rule complains about names that field."""
    return error.message if same_branch(path, error.dotted) else f"{error.dotted}: {error.message}"


def _shorten_warm_up(tree: dict[str, Any]) -> None:
    """A preset that is made shorter than its warm-up warms up all the way, since nobody asked for another one."""
    optimizer, train = tree.get("optimizer"), tree.get("train")
    if not isinstance(optimizer, dict) or not isinstance(train, dict):
        return
    warm_up, steps = optimizer.get("warmup_steps"), scalar(train.get("steps"), int)
    if isinstance(warm_up, int) and isinstance(steps, int) and warm_up > steps > 0:
        optimizer["warmup_steps"] = steps
