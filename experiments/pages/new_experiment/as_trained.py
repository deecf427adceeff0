"""The matrix of a stored experiment, for submitting it again.

In older experiments a section in the matrix reset the fields it did not name to their defaults; today it is merged into
the base. Where runs were trained the old way, the section is written out in full, so that the template gives the same
runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.models import Experiment
from experiments.submissions.matrix import merged

from .spec_form import value_at


def matrix(experiment: Experiment) -> dict[str, list[Any]]:
    """The matrix, each section with all the values that its runs were trained with."""
    stored: dict[str, list[Any]] = experiment.matrix
    sections = [path for path, values in stored.items() if any(isinstance(value, Mapping) for value in values)]
    if not sections:
        return stored
    runs = list(experiment.runs.order_by("index").values_list("params", "spec"))
    return stored | {path: [_trained(experiment, runs, path, value) for value in stored[path]] for path in sections}


def _trained(experiment: Experiment, runs: list[tuple[Any, Any]], path: str, value: Any) -> Any:
    spec = next((spec for params, spec in runs if params.get(path) == value), None)
    if spec is None or not isinstance(value, Mapping):
        return value
    varied = [key.removeprefix(f"{path}.") for key in experiment.matrix if key.startswith(f"{path}.")]
    trained = _without(value_at(spec, path, {}), varied)
    return value if trained == _without(merged(value_at(experiment.spec, path, {}), value), varied) else trained


def _without(tree: Any, paths: list[str]) -> Any:
    """Without the fields that the matrix varies on their own."""
    if not isinstance(tree, Mapping):
        return tree
    below = {name: [path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}.")] for name in tree}
    return {name: _without(part, below[name]) for name, part in tree.items() if name not in paths}
