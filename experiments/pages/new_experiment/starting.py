"""What stands in the form before anybody changes it, so that only what was changed is sent on.

The form shows a value in every field. Sent as they stand, untouched fields would say more than REST's short bodies do,
and would keep the values of a task that is no longer chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.spec import flatten, parse_spec, resolved
from experiments.submissions.presets import Preset, presets

from . import spec_form as specform


def of_fields(spec: Mapping[str, Any], task: str, dataset: str) -> dict[str, Any]:
    """The spec's values by the paths of the form's fields; a field that it lacks stands at its default."""
    return {path: specform.value_at(spec, path, item.default) for path, item in specform.fields(task, dataset).items()}


def preset_of(name: str, task: str, dataset: str) -> Preset | None:
    """The preset of that name, as long as its task and data set are the chosen ones."""
    known = presets().get(name)
    return known if known and (known.spec["task"], known.spec["data"]["dataset"]) == (task, dataset) else None


def values(preset: str, task: str, dataset: str) -> dict[str, Any]:
    """By path: the task's defaults; of a preset for this task its own values, those of the data only for its data
    set."""
    start = {path: item.default for path, item in specform.fields(task, dataset).items()}
    known = presets().get(preset)
    if known is None or known.spec["task"] != task:
        return start
    own = of_fields(resolved(parse_spec(known.spec)), task, dataset)
    same_data = preset_of(preset, task, dataset) is not None
    return start | {path: value for path, value in own.items() if same_data or not path.startswith("data.")}


def beyond(spec: Mapping[str, Any], task: str, dataset: str) -> list[str]:
    """What the spec says that the form has no field for, as dotted paths; it would be lost there."""
    fields = specform.fields(task, dataset)
    whole = [path for path, item in fields.items() if item.kind == "mapping"]
    known = {*fields, "task", "data.dataset", "seed", *whole}
    paths = [path for path, _ in flatten(spec) if path not in known]
    return [path for path in paths if not any(path.startswith(f"{mapping}.") for mapping in whole)]
