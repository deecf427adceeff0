"""Resolves a raw spec with settings; errors point at the setting that is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.spec import FieldError, Spec, SpecError, parse_spec
from experiments.spec.sections.base import scalar

from .blame import Blame, same_branch
from .body import SubmissionError
from .matrix import MatrixCell, Setting, Unreachable, applied, combinations, params_of, sets


@dataclass(frozen=True)
class Resolver:
    """A base spec with the settings of every cell: overrides and pool. `of_preset`: the base is a preset's."""

    base: Mapping[str, Any]
    fixed: tuple[Setting, ...]
    of_preset: bool
    stored: bool = False

    def resolve(self, written: Mapping[str, Any]) -> Spec:
        """The spec of the cell with these values. Raises SubmissionError that points at the wrong settings."""
        try:
            return parse_spec(self._tree(self.fixed, written), stored=self.stored)
        except Unreachable as error:
            raise SubmissionError([error.error]) from None
        except SpecError as error:
            raise SubmissionError([self._located(wrong, written) for wrong in error.errors]) from None

    def cells(self, matrix: Mapping[str, list[Any]]) -> list[MatrixCell]:
        """Every combination of the matrix's values. Raises SubmissionError with the errors of all of them."""
        cells: list[MatrixCell] = []
        errors: dict[tuple[str | int, ...], FieldError] = {}
        for written in combinations(matrix):
            try:
                spec = self.resolve(written)
            except SubmissionError as error:
                for wrong in error.errors:
                    errors.setdefault(wrong.path, wrong)
            else:
                cells.append(MatrixCell(written, params_of(written, spec), spec))
        if errors:
            raise SubmissionError(list(errors.values()))
        return cells

    def _tree(self, fixed: tuple[Setting, ...], written: Mapping[str, Any]) -> dict[str, Any]:
        settings = [*fixed, *(Setting("matrix", path, value) for path, value in written.items())]
        tree = applied(self.base, settings)
        if self.of_preset and not any(sets(setting, "optimizer.warmup_steps") for setting in settings):
            _shorten_warm_up(tree)
        return tree

    def _located(self, error: FieldError, written: Mapping[str, Any]) -> FieldError:
        """The error at the matrix entry, the override, the pool, or the spec's field."""
        if path := self._blame_matrix.of(error, written):
            text, value = _message(error, path), repr(written[path])
            return FieldError(("matrix", path), text if f"you gave {value}" in text else f"{text} (value {value})")
        overrides = {setting.path: setting.value for setting in self.fixed if setting.place == "overrides"}
        if path := self._blame_overrides.of(error, overrides):
            return FieldError(("overrides", path), _message(error, path))
        if any(setting.place == "pool" and same_branch(setting.path, error.dotted) for setting in self.fixed):
            return FieldError(("pool",), error.message)
        return FieldError(("spec", *error.path), error.message)

    @cached_property
    def _blame_matrix(self) -> Blame:
        return Blame(lambda values: self._wrong(self.fixed, values))

    @cached_property
    def _blame_overrides(self) -> Blame:
        pool = [setting for setting in self.fixed if setting.place != "overrides"]

        def wrong(values: Mapping[str, Any]) -> list[FieldError]:
            overrides = (Setting("overrides", path, value) for path, value in values.items())
            return self._wrong((*pool, *overrides), {})

        return Blame(wrong)

    def _wrong(self, fixed: tuple[Setting, ...], written: Mapping[str, Any]) -> list[FieldError]:
        try:
            parse_spec(self._tree(fixed, written), stored=self.stored)
        except Unreachable as error:
            return [error.error]
        except SpecError as error:
            return error.errors
        return []


def _message(error: FieldError, path: str) -> str:
    """The message, with the field that the rule reports where it is shown at another one."""
    return error.message if same_branch(path, error.dotted) else f"{error.dotted}: {error.message}"


def _shorten_warm_up(tree: dict[str, Any]) -> None:
    """A preset made shorter than its warm-up warms up until its end, where no setting changes the warm-up."""
    optimizer, train = tree.get("optimizer"), tree.get("train")
    if not isinstance(optimizer, dict) or not isinstance(train, dict):
        return
    warm_up, steps = optimizer.get("warmup_steps"), scalar(train.get("steps"), int)
    if isinstance(warm_up, int) and isinstance(steps, int) and warm_up > steps > 0:
        optimizer["warmup_steps"] = steps
