"""The new-experiment form between two requests: the typed values as a submission, with errors at fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from experiments.models import Experiment
from experiments.pages.http import yaml_text
from experiments.spec import TASKS, FieldError, SpecError, flatten, parse_spec, resolved
from experiments.submissions.presets import Preset, presets
from experiments.submissions.submission import MAX_SEEDS

from . import as_trained, spec_form, starting, tag_text
from .form_names import TEXTS, wrong_names

_RANGE = re.compile(r"(\d{1,10})(?:-|\.\.)(\d{1,10})")
_SPACED_RANGE = re.compile(r"(?<!\s)\s*+(-|\.\.)\s*")  # begins where spaces begin, and never again inside them


@dataclass
class Draft:
    """The form's values. `wrong` holds the errors of reading them; the spec validates the rest."""

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
        known = spec_form.datasets(self.task)
        return chosen if chosen in known else known[0]

    def beyond_form(self) -> list[str]:
        """Paths of the spec that the form cannot show; 'task' for the task of a package."""
        if self.spec.get("task", self.task) not in TASKS:
            return ["task"]
        return starting.beyond(self.spec, self.task, self.dataset)

    def write_yaml(self) -> None:
        """Write the form's values as the text of the YAML editor."""
        if self.source == "form":
            self.yaml = yaml_text.dump({key: value for key, value in self.spec.items() if key != "seed"})

    def submission(self) -> dict[str, Any]:
        """The body for REST. Building it may add to `wrong`."""
        body: dict[str, Any] = {
            "name": self.name.strip(),
            "matrix": self._matrix(),
            "seeds": self._seeds(),
            "priority": spec_form.number(self.priority.strip() or "0"),
            "tags": tag_text.load(self.tags),
            "notes": self.notes,
        }
        if self.project:
            body["project"] = self.project
        return body | self._definition()

    def _definition(self) -> dict[str, Any]:
        """A preset with the fields that differ from it, if its task and dataset are unchanged; else a spec with the
        fields that differ from the task's defaults, or the YAML as it is."""
        if self.preset and self.preset not in presets():
            return {"preset": self.preset}  # refused by its name when submitted
        preset = starting.preset_of(self.preset, self.task, self.dataset)
        if self.source == "yaml":
            return self._yaml_definition(preset)
        if self.spec.get("task") not in TASKS:
            return {"spec": self.spec}
        changed = self._changed_fields(preset)
        if preset is not None:
            return _changed_preset(preset, changed)
        spec: dict[str, Any] = {"task": self.task, "data": {"dataset": self.dataset}}
        for path, value in changed.items():
            put(spec, path, value)
        return {"spec": spec}

    def _changed_fields(self, preset: Preset | None) -> dict[str, Any]:
        start = starting.values(preset.name if preset else "", self.task, self.dataset)
        values = starting.of_fields(self.spec, self.task, self.dataset)
        return {path: value for path, value in values.items() if value != start[path]}

    def _yaml_definition(self, preset: Preset | None) -> dict[str, Any]:
        """The preset with changed fields, where the YAML has exactly the preset's fields; else the YAML's spec."""
        if "seed" in self.spec:
            self.wrong.append(FieldError(("spec", "seed"), "seeds have their own field: remove this line"))
        if preset is None:
            return {"spec": self.spec}
        try:
            leaves = dict(flatten(resolved(parse_spec(self.spec))))
        except SpecError:
            return {"spec": self.spec}
        base = dict(flatten(resolved(parse_spec(preset.spec))))
        if set(base) != set(leaves):
            return {"spec": self.spec}
        return _changed_preset(preset, {path: leaves[path] for path in base if leaves[path] != base[path]})

    def _matrix(self) -> dict[str, list[Any]]:
        matrix: dict[str, list[Any]] = {}
        for row, (path, text) in enumerate((path.strip(), text) for path, text in self.matrix):
            if not path and not text.strip():
                continue
            if not path:
                self.wrong.append(FieldError(("matrix", row), "name the field that these values are for"))
            elif path in matrix:
                self.wrong.append(FieldError(("matrix", path), "this field is listed twice"))
            else:
                matrix[path] = self._values(path, text)
        return matrix

    def _values(self, path: str, text: str) -> list[Any]:
        if not text.strip():
            return []
        try:
            return yaml_text.values(text)
        except yaml_text.YamlError as error:
            self.wrong.append(FieldError(("matrix", path), str(error)))
            return []

    def _seeds(self) -> list[Any]:
        seeds: list[Any] = []
        for part in re.findall(r"[^,\s]+", _SPACED_RANGE.sub(r"\1", self.seeds)):
            span = _RANGE.fullmatch(part)
            if span is None:
                seeds.append(spec_form.number(part))
            elif int(span[2]) < int(span[1]) or int(span[2]) - int(span[1]) >= MAX_SEEDS:
                self.wrong.append(FieldError(("seeds",), f"the range {part} is empty or over {MAX_SEEDS:,} seeds"))
            else:
                seeds += range(int(span[1]), int(span[2]) + 1)
        if not seeds and not self.wrong:
            self.wrong.append(FieldError(("seeds",), "give at least one seed, for example 0-2"))
        return seeds


def _changed_preset(preset: Preset, changed: dict[str, Any]) -> dict[str, Any]:
    """The pool has its own field in REST and is no change of the preset."""
    pool = {"pool": changed.pop("resources.pool")} if "resources.pool" in changed else {}
    return {"preset": preset.name, "overrides": changed, **pool}


def from_preset(preset: Preset) -> Draft:
    spec = _whole(preset.spec)
    pairs = [(path, yaml_text.values_text(values)) for path, values in preset.matrix.items()]
    return Draft(name=preset.title.en, preset=preset.name, spec=spec, matrix=pairs, seeds=seeds_text(preset.seeds))


def from_experiment(experiment: Experiment) -> Draft:
    """The definition of an experiment as a draft; as YAML where the form lacks a field for it."""
    draft = Draft(
        name=experiment.name,
        project=experiment.project.name,
        preset=experiment.preset if experiment.preset in presets() else "",
        spec=_whole(experiment.spec),
        matrix=[(path, yaml_text.values_text(values)) for path, values in as_trained.matrix(experiment).items()],
        seeds=seeds_text(experiment.seeds),
        priority=str(experiment.priority),
        tags=tag_text.dump(experiment.tags),
        notes=experiment.notes,
    )
    if draft.beyond_form():
        draft.write_yaml()
        draft.source = "yaml"
    return draft


def blank() -> Draft:
    task = next(iter(TASKS))
    return Draft(spec=_whole({"task": task, "data": {"dataset": spec_form.datasets(task)[0]}}))


def from_post(post: QueryDict) -> Draft:
    """Read the posted form; the spec comes from the editor that was in use."""
    draft = Draft(
        source="yaml" if post.get("source") == "yaml" else "form",
        yaml=post.get("yaml", ""),
        matrix=list(zip(post.getlist("matrix-path"), post.getlist("matrix-values"), strict=False)),
    )
    for name in TEXTS:
        setattr(draft, name, post.get(name, ""))
    draft.wrong += wrong_names(post, _fields_sent(post) if draft.source == "form" else None)
    if draft.source == "form":
        draft.spec = _typed_spec(post)
        return draft
    try:
        draft.spec = yaml_text.load(draft.yaml)
    except yaml_text.YamlError as error:
        where = f"line {error.line}: " if error.line else ""
        draft.wrong.append(FieldError(("yaml",), f"{where}{error}"))
    return draft


def _typed_spec(post: QueryDict) -> dict[str, Any]:
    """The typed values. After a change of task or dataset the old fields are posted once more: fields that were not
    edited take the new task's values."""
    task = post.get("spec.task", "")
    if task not in TASKS:
        return {"task": task}
    known = spec_form.datasets(task)
    dataset = post.get("spec.data.dataset", "")
    spec: dict[str, Any] = {"task": task, "data": {"dataset": dataset if dataset in known else known[0]}}
    before = _shown(post, task, spec["data"]["dataset"])
    old_fields, old = spec_form.fields(*before), starting.values(post.get("preset", ""), *before)
    for path, value in starting.values(post.get("preset", ""), task, spec["data"]["dataset"]).items():
        shown = path in old_fields and (f"spec.{path}" in post or f"has.{path}" in post)
        typed = spec_form.typed(old_fields[path], post.getlist(f"spec.{path}")) if shown else value
        put(spec, path, typed if shown and typed != old[path] else value)
    return spec


def _fields_sent(post: QueryDict) -> dict[str, spec_form.FormField]:
    task = post.get("spec.task", "")
    task = task if task in TASKS else next(iter(TASKS))
    return spec_form.fields(*_shown(post, task, post.get("spec.data.dataset", "")))


def _shown(post: QueryDict, task: str, dataset: str) -> tuple[str, str]:
    """The task and the dataset whose fields were posted."""
    shown = post.get("shown.task", task)
    if shown not in TASKS:
        return task, dataset
    chosen, known = post.get("shown.dataset", dataset), spec_form.datasets(shown)
    return shown, chosen if chosen in known else known[0]


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[leaf] = value


def _whole(raw: Mapping[str, Any]) -> dict[str, Any]:
    """With every default written out; without the seed, which has its own field."""
    try:
        spec = resolved(parse_spec(raw))
    except SpecError:
        spec = dict(raw)  # of an older version: shown unchanged, with errors at its fields
    spec.pop("seed", None)
    return spec


def seeds_text(seeds: list[int]) -> str:
    """The seeds 0, 1, 2, 3 as 0-3."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
