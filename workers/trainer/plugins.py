"""Entry points of installed packages in the groups attnservice.variants, .tasks, .models and .datasets, each named
`package.name`. A spec only names them; the code is the operator's."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from experiments.spec import FieldError, SpecError
from workers.trainer.data import digest

_FIELDS = {"variants": "model.attention.variant", "tasks": "task", "models": "model.name", "datasets": "data.dataset"}


def load(group: str, name: str) -> Any:
    """The registered object. Raises SpecError where no installed package has it, or its import fails."""
    registered = {point.name: point for point in entry_points(group=f"attnservice.{group}")}
    path = tuple(_FIELDS[group].split("."))
    if name not in registered:
        known = f"it has {', '.join(sorted(registered))}" if registered else "no package here registers any"
        raise SpecError([FieldError(path, f"this worker has no '{name}' among its {group}; {known}")])
    try:
        loaded = registered[name].load()
        digest.read_package(registered[name].module)
        return loaded
    except Exception as error:  # a package's import may raise anything
        message = f"'{name}' of {registered[name].value} cannot be imported: {type(error).__name__}: {error}"
        raise SpecError([FieldError(path, message)]) from error
