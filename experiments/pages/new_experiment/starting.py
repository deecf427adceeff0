"""The form's values before anybody edits them, so that only edited fields are submitted.

The form shows a value in every field. If untouched fields were submitted, the spec would say more than REST's short
bodies do, and would keep the values of a task that is no longer chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.spec import flatten, parse_spec, resolved
from experiments.submissions.presets import Preset, presets

from . import spec_form


def of_fields(spec: Mapping[str, Any], task: str, dataset: str) -> dict[str, Any]:
    """The spec's values by the paths of the form's fields; the default where the spec has none."""
    fields = spec_form.fields(task, dataset)
    return {path: spec_form.value_at(spec, path, field.default) for path, field in fields.items()}


def preset_of(name: str, task: str, dataset: str) -> Preset | None:
    """The preset of that name, if its task and dataset are the chosen ones."""
    preset = presets().get(name)
    return preset if preset and (preset.spec["task"], preset.spec["data"]["dataset"]) == (task, dataset) else None


def values(preset: str, task: str, dataset: str) -> dict[str, Any]:
    """By path: the task's defaults, then the values of a preset for this task; those of `data` only for its dataset."""
    defaults = {path: field.default for path, field in spec_form.fields(task, dataset).items()}
    known = presets().get(preset)
    if known is None or known.spec["task"] != task:
        return defaults
    own = of_fields(resolved(parse_spec(known.spec)), task, dataset)
    same_data = preset_of(preset, task, dataset) is not None
    return defaults | {path: value for path, value in own.items() if same_data or not path.startswith("data.")}


def beyond(spec: Mapping[str, Any], task: str, dataset: str) -> list[str]:
    """Dotted paths of the spec that the form has no field for; the form would lose them."""
    fields = spec_form.fields(task, dataset)
    known = {*fields, "task", "data.dataset", "seed"}
    whole = tuple(f"{path}." for path, field in fields.items() if field.kind == "mapping")
    return [path for path, _ in flatten(spec) if path not in known and not path.startswith(whole)]
