"""The new-experiment form between two requests: what was typed, as a submission, with errors at fields."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from django.http import QueryDict

from experiments.models import Experiment
from experiments.presets import Preset, presets
from experiments.spec import TASKS, FieldError, SpecError, flatten, parse_spec, resolved
from experiments.submission import MAX_SEEDS

from . import specform, yamltext

_RANGE = re.compile(r"(\d{1,10})\s*(?:-|\.\.)\s*(\d{1,10})")


@dataclass
class Draft:
    """Everything in the form. `wrong` holds what could not even be read; the spec judges the rest."""

    source: str = "form"
    name: str = ""
    project: str = ""
    preset: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    yaml: str = ""
    matrix: list[tuple[str, str]] = field(default_factory=list)
    seeds: str = "0"
    priority: str = "0"
    tags: str = ""
    notes: str = ""
    wrong: list[FieldError] = field(default_factory=list)

    @property
    def task(self) -> str:
        task = self.spec.get("task")
        return task if isinstance(task, str) and task in TASKS else next(iter(TASKS))

    @property
    def dataset(self) -> str:
        data = self.spec.get("data")
        chosen = data.get("dataset") if isinstance(data, Mapping) else None
        known = specform.datasets(self.task)
        return chosen if chosen in known else known[0]

    def write_yaml(self) -> None:
        """What the form holds, as the text that the other editor shows."""
        if self.source == "form":
            self.yaml = yamltext.dump({key: value for key, value in self.spec.items() if key != "seed"})

    def submission(self) -> dict[str, Any]:
        """The body that REST would take. Reading it may add to `wrong`."""
        body: dict[str, Any] = {
            "name": self.name.strip(),
            "matrix": self._matrix(),
            "seeds": self._seeds(),
            "priority": specform.number(self.priority.strip() or "0"),
            "tags": [tag.strip() for tag in self.tags.split(",") if tag.strip()],
            "notes": self.notes,
        }
        return body | ({"project": self.project} if self.project else {}) | self._definition()

    def _definition(self) -> dict[str, Any]:
        """A preset with what differs from it, as long as it is still that preset's shape; else the whole spec."""
        known = presets().get(self.preset)
        if self.preset and known is None:
            return {"preset": self.preset}  # refused there by its name
        if known is None or self.wrong:
            return {"spec": self.spec}
        base = dict(flatten(resolved(parse_spec(known.spec))))
        mine = dict(flatten(self.spec))
        mine.setdefault("seed", base["seed"])
        if set(base) != set(mine):
            return {"spec": self.spec}
        return {"preset": known.name, "overrides": {path: mine[path] for path in base if mine[path] != base[path]}}

    def _matrix(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for at, (path, text) in enumerate(self.matrix):
            if not path.strip() and not text.strip():
                continue
            if not path.strip():
                self.wrong.append(FieldError(("matrix", at), "name the field that these values are for"))
            elif path.strip() in found:
                self.wrong.append(FieldError(("matrix", path.strip()), "this field stands here twice"))
            else:
                found[path.strip()] = self._values(path.strip(), text)
        return found

    def _values(self, path: str, text: str) -> list[Any]:
        if not text.strip():
            return []
        try:
            return yamltext.values(text)
        except yamltext.YamlError as error:
            self.wrong.append(FieldError(("matrix", path), str(error)))
            return []

    def _seeds(self) -> list[Any]:
        found: list[Any] = []
        for part in filter(None, re.split(r"[,\s]+", re.sub(r"\s*(-|\.\.)\s*", r"\1", self.seeds.strip()))):
            span = _RANGE.fullmatch(part)
            if span is None:
                found.append(specform.number(part))
            elif int(span[2]) < int(span[1]) or int(span[2]) - int(span[1]) >= MAX_SEEDS:
                self.wrong.append(FieldError(("seeds",), f"the range {part} is empty or over {MAX_SEEDS:,} seeds"))
            else:
                found += range(int(span[1]), int(span[2]) + 1)
        if not found and not self.wrong:
            self.wrong.append(FieldError(("seeds",), "give at least one seed, for example 0-2"))
        return found


def from_preset(preset: Preset) -> Draft:
    spec = _whole(preset.spec)
    pairs = [(path, values_text(values)) for path, values in preset.matrix.items()]
    return Draft(name=preset.title.en, preset=preset.name, spec=spec, matrix=pairs, seeds=seeds_text(preset.seeds))


def from_experiment(experiment: Experiment) -> Draft:
    """The same definition again, to be changed."""
    return Draft(
        name=experiment.name,
        project=experiment.project.name,
        preset=experiment.preset if experiment.preset in presets() else "",
        spec=_whole(experiment.spec),
        matrix=[(path, values_text(values)) for path, values in experiment.matrix.items()],
        seeds=seeds_text(experiment.seeds),
        priority=str(experiment.priority),
        tags=", ".join(experiment.tags),
        notes=experiment.notes,
    )


def blank() -> Draft:
    task = next(iter(TASKS))
    return Draft(spec=_whole({"task": task, "data": {"dataset": specform.datasets(task)[0]}}))


def from_post(post: QueryDict) -> Draft:
    """Read the form back; whichever of the two editors was in use is the truth."""
    draft = Draft(
        source="yaml" if post.get("source") == "yaml" else "form",
        yaml=post.get("yaml", ""),
        matrix=list(zip(post.getlist("matrix-path"), post.getlist("matrix-values"), strict=False)),
    )
    for name in ("name", "project", "preset", "seeds", "priority", "tags", "notes"):
        setattr(draft, name, post.get(name, ""))
    if draft.source == "form":
        draft.spec = _typed_spec(post)
        return draft
    try:
        draft.spec = yamltext.load(draft.yaml)
    except yamltext.YamlError as error:
        at = f"line {error.line}: " if error.line else ""
        draft.wrong.append(FieldError(("yaml",), f"{at}{error}"))
    return draft


def _typed_spec(post: QueryDict) -> dict[str, Any]:
    task = post.get("spec.task", "")
    if task not in TASKS:
        return {"task": task}
    known = specform.datasets(task)
    dataset = post.get("spec.data.dataset", "")
    spec: dict[str, Any] = {"task": task, "data": {"dataset": dataset if dataset in known else known[0]}}
    for path, item in specform.fields(task, spec["data"]["dataset"]).items():
        shown = f"spec.{path}" in post or f"has.{path}" in post
        put(spec, path, specform.typed(item, post.getlist(f"spec.{path}")) if shown else item.default)
    return spec


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[leaf] = value


def _whole(raw: Mapping[str, Any]) -> dict[str, Any]:
    """With every default written out; without the seed, which has a field of its own."""
    try:
        spec = resolved(parse_spec(raw))
    except SpecError:
        spec = dict(raw)  # a definition of an older version: shown as it is, its errors at the fields
    spec.pop("seed", None)
    return spec


def values_text(values: list[Any]) -> str:
    return yaml.safe_dump(values, default_flow_style=True, width=math.inf, allow_unicode=True).strip()[1:-1]


def seeds_text(seeds: list[int]) -> str:
    """0, 1, 2, 3 as 0-3."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
