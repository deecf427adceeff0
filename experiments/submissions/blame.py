"""Which of several settings brings an error into a spec. Found by trying: a rule may complain about one field because
of another, so names alone do not tell (of `heads: 3` the rule complains at d_model)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from experiments.spec import FieldError

Wrong = Callable[[Mapping[str, Any]], list[FieldError]]


class Blame:
    """Finds, among settings of a base, the one that an error comes from. `wrong` judges the base with the given
    settings alone; `known` is wrong with the base itself, which no setting brought."""

    def __init__(self, wrong: Wrong) -> None:
        self.wrong = wrong
        self.known = [error.path for error in wrong({})]
        self.alone: dict[str, list[tuple[str | int, ...]]] = {}

    def of(self, error: FieldError, settings: Mapping[str, Any]) -> str | None:
        """The setting of this field, of a part of it or of what it is part of; else the first that brings the error
        alone; else, of settings that do so together, the last. None where the base was wrong before."""
        if named := next((path for path in settings if same_branch(path, error.dotted)), None):
            return named
        if error.path in self.known or not settings:
            return None
        guilty = (path for path, value in settings.items() if error.path in self._alone(path, value))
        return next(guilty, list(settings)[-1])

    def _alone(self, path: str, value: Any) -> list[tuple[str | int, ...]]:
        key = json.dumps([path, value], sort_keys=True)
        if key not in self.alone:
            self.alone[key] = [error.path for error in self.wrong({path: value})]
        return self.alone[key]


def same_branch(one: str, other: str) -> bool:
    """Whether one dotted path is the other or lies below it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
