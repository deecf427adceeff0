"""Which of several settings causes an error of a spec. Found by trying each: a rule may report one field because of
another (of `heads: 3` it reports d_model)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from experiments.spec import FieldError

Wrong = Callable[[Mapping[str, Any]], list[FieldError]]


class Blame:
    """Finds, among settings of a base, the cause of an error. `wrong` checks the base with the given settings only;
    `known` are the errors of the base itself, which no setting causes."""

    def __init__(self, wrong: Wrong) -> None:
        self.wrong = wrong
        self.known = [error.path for error in wrong({})]
        self.alone: dict[str, list[tuple[str | int, ...]]] = {}

    def of(self, error: FieldError, settings: Mapping[str, Any]) -> str | None:
        """The setting of this field, of a part of it or of a section around it; else the first that causes the error
        alone; else the last, since several cause it together. None where the base has the error already."""
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


def same_branch(path: str, other: str) -> bool:
    """Whether the dotted paths are equal or one lies below the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
