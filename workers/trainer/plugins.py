"""What packages installed on this worker register: entry points in the groups attnservice.variants, .tasks, .models
and .datasets, each named `package.name`. A spec only names them; the code is the operator's."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from experiments.spec import FieldError, SpecError
from workers.trainer.data import digest

_FIELDS = {"variants": "model.attention.variant", "tasks": "task", "models": "model.name", "datasets": "data.dataset"}


def load(group: str, name: str) -> Any:
    """What the package registered. Raises SpecError where no package here has it, or it cannot be imported."""
    found = {point.name: point for point in entry_points(group=f"attnservice.{group}")}
    path = tuple(_FIELDS[group].split("."))
    if name not in found:
        known = f"it has {', '.join(sorted(found))}" if found else "it has none of any package"
        raise SpecError([FieldError(path, f"this worker has no '{name}' among its {group}; {known}")])
    try:
        loaded = found[name].load()
        digest.read_package(found[name].module)
        return loaded
    except Exception as error:  # a package's import may raise whatever it likes
        message = f"'{name}' of {found[name].value} cannot be imported: {type(error).__name__}: {error}"
        raise SpecError([FieldError(path, message)]) from error
