"""A file with one run: a spec, the body of `POST /experiments/`, or a preset.

A body means what it means in REST, and is refused where it makes more than one run. Of a preset the spec is trained;
the rest is logged as left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.spec import FieldError, Spec, SpecError, parse_spec
from experiments.spec.inert import is_whole, unused
from experiments.spec.yaml_text import YamlError, load
from experiments.submissions.presets import Preset
from experiments.submissions.submission import Submission, SubmissionError, plan

_OF_THE_SERVICE = ("project", "priority", "tags", "notes")  # fields of a body without effect on training


@dataclass(frozen=True)
class Named:
    """The run, and a sentence on what else the file holds."""

    spec: Spec
    left_out: str = ""


def read(path: Path) -> Named:
    """Raises SpecError that names every invalid field, YamlError, and ValueError for an invalid preset."""
    try:
        raw = load(path.read_text("utf-8"))
    except YamlError as error:
        raise YamlError(f"line {error.line}: {error}" if error.line else str(error)) from None
    if not isinstance(raw, Mapping) or "task" in raw or not raw.keys() & {*Submission.model_fields, "spec"}:
        return Named(_alone(raw))
    return _of_preset(raw) if {"title", "claim"} & raw.keys() else _of_body({"name": path.stem, **raw})


def _alone(raw: Any) -> Spec:
    """A spec by itself, checked like the spec of a body."""
    spec = parse_spec(raw)
    if not is_whole(raw, spec) and (errors := list(unused([spec]))):
        raise SpecError(errors)
    return spec


def _of_preset(raw: Mapping[str, Any]) -> Named:
    preset = Preset.model_validate(raw)
    parts = [f"the matrix ({', '.join(preset.matrix)})"] if preset.matrix else []
    parts += [f"{len(preset.also)} further part{'s' * (len(preset.also) > 1)} (also)"] if preset.also else []
    spec = parse_spec(preset.spec)
    parts += [f"the seeds {', '.join(map(str, preset.seeds))}"] if preset.seeds != [spec.seed] else []
    text = f"only the preset's spec is trained, with seed {spec.seed}; left out: {'; '.join(parts)}"
    return Named(spec, text if parts else "")


def _of_body(raw: Mapping[str, Any]) -> Named:
    try:
        planned = plan(raw)
    except SubmissionError as error:
        raise SpecError(error.errors) from None
    if len(planned.runs) > 1:
        fields = [name for name, values in (("matrix", planned.matrix), ("seeds", planned.seeds[1:])) if values]
        message = f"makes {len(planned.runs):,} runs, and one is trained here: submit it, or keep one value of each"
        raise SpecError([FieldError((name,), message) for name in fields or ["preset"]])
    run = planned.runs[0]
    unused = [name for name in _OF_THE_SERVICE if raw.get(name)]
    return Named(run.spec, f"no effect without the service: {', '.join(unused)}" if unused else "")
