"""The new-experiment form between two requests: what was typed, as a submission, with errors at fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from experiments.models import Experiment
from experiments.pages.http import yaml_text as yamltext
from experiments.spec import TASKS, FieldError, SpecError, flatten, parse_spec, resolved
from experiments.submissions.presets import Preset, presets
from experiments.submissions.submission import MAX_SEEDS

from . import as_trained, starting, tag_text
from . import spec_form as specform
from .form_names import TEXTS, wrong_names

_RANGE = re.compile(r"(\d{1,10})(?:-|\.\.)(\d{1,10})")
_SPACED_RANGE = re.compile(r"(?<!\s)\s*+(-|\.\.)\s*")  # begins where spaces begin, and never again inside them


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

    def beyond_form(self) -> list[str]:
        """What the spec says that the form could not show; a task of a package as a whole."""
        if self.spec.get("task", self.task) not in TASKS:
            return ["task"]
        return starting.beyond(self.spec, self.task, self.dataset)

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
            "tags": tag_text.load(self.tags),
            "notes": self.notes,
        }
        return body | ({"project": self.project} if self.project else {}) | self._definition()

    def _definition(self) -> dict[str, Any]:
        """A preset with what differs from it, as long as it is still that preset's task and data; else what differs
        from the task's defaults, or the YAML as it stands."""
        if self.preset and self.preset not in presets():
            return {"preset": self.preset}  # refused there by its name
        known = starting.preset_of(self.preset, self.task, self.dataset)
        if self.source == "yaml":
            if "seed" in self.spec:
                self.wrong.append(FieldError(("spec", "seed"), "seeds have a field of their own: remove this line"))
            return {"spec": self.spec} if known is None else self._beside_preset(known)
        if self.spec.get("task") not in TASKS:
            return {"spec": self.spec}
        start = starting.values(known.name if known else "", self.task, self.dataset)
        mine = starting.of_fields(self.spec, self.task, self.dataset)
        changed = {path: value for path, value in mine.items() if value != start[path]}
        if known is not None:
            return _changed_preset(known, changed)
        spec: dict[str, Any] = {"task": self.task, "data": {"dataset": self.dataset}}
        for path, value in changed.items():
            put(spec, path, value)
        return {"spec": spec}

    def _beside_preset(self, preset: Preset) -> dict[str, Any]:
        """YAML that means the preset but for some fields, whatever it leaves at its default; else the spec."""
        try:
            mine = dict(flatten(resolved(parse_spec(self.spec))))
        except SpecError:
            return {"spec": self.spec}
        base = dict(flatten(resolved(parse_spec(preset.spec))))
        if set(base) != set(mine):
            return {"spec": self.spec}
        return _changed_preset(preset, {path: mine[path] for path in base if mine[path] != base[path]})

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
        for part in re.findall(r"[^,\s]+", _SPACED_RANGE.sub(r"\1", self.seeds)):
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


def _changed_preset(preset: Preset, changed: dict[str, Any]) -> dict[str, Any]:
    """The pool has a field of its own in REST, which leaves the preset as it stands."""
    pool = {"pool": changed.pop("resources.pool")} if "resources.pool" in changed else {}
    return {"preset": preset.name, "overrides": changed, **pool}


def from_preset(preset: Preset) -> Draft:
    spec = _whole(preset.spec)
    pairs = [(path, yamltext.values_text(values)) for path, values in preset.matrix.items()]
    return Draft(name=preset.title.en, preset=preset.name, spec=spec, matrix=pairs, seeds=seeds_text(preset.seeds))


def from_experiment(experiment: Experiment) -> Draft:
    """The same definition again, to be changed. What the form has no fields for is shown as YAML."""
    draft = Draft(
        name=experiment.name,
        project=experiment.project.name,
        preset=experiment.preset if experiment.preset in presets() else "",
        spec=_whole(experiment.spec),
        matrix=[(path, yamltext.values_text(values)) for path, values in as_trained.matrix(experiment).items()],
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
    return Draft(spec=_whole({"task": task, "data": {"dataset": specform.datasets(task)[0]}}))


def from_post(post: QueryDict) -> Draft:
    """Read the form back; whichever of the two editors was in use is the truth."""
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
        draft.spec = yamltext.load(draft.yaml)
    except yamltext.YamlError as error:
        at = f"line {error.line}: " if error.line else ""
        draft.wrong.append(FieldError(("yaml",), f"{at}{error}"))
    return draft


def _typed_spec(post: QueryDict) -> dict[str, Any]:
    """What was typed. After a change of task or data set the old fields are sent once more: what still stands at its
    old start takes the new one's."""
    task = post.get("spec.task", "")
    if task not in TASKS:
        return {"task": task}
    known = specform.datasets(task)
    dataset = post.get("spec.data.dataset", "")
    spec: dict[str, Any] = {"task": task, "data": {"dataset": dataset if dataset in known else known[0]}}
    before = _shown(post, task, spec["data"]["dataset"])
    old_fields, old = specform.fields(*before), starting.values(post.get("preset", ""), *before)
    for path, value in starting.values(post.get("preset", ""), task, spec["data"]["dataset"]).items():
        shown = path in old_fields and (f"spec.{path}" in post or f"has.{path}" in post)
        typed = specform.typed(old_fields[path], post.getlist(f"spec.{path}")) if shown else value
        put(spec, path, typed if shown and typed != old[path] else value)
    return spec


def _fields_sent(post: QueryDict) -> dict[str, specform.Field]:
    task = post.get("spec.task", "")
    return specform.fields(
        *_shown(post, task if task in TASKS else next(iter(TASKS)), post.get("spec.data.dataset", ""))
    )


def _shown(post: QueryDict, task: str, dataset: str) -> tuple[str, str]:
    """The task and the data set whose fields were sent."""
    shown = post.get("shown.task", task)
    if shown not in TASKS:
        return task, dataset
    chosen, known = post.get("shown.dataset", dataset), specform.datasets(shown)
    return shown, chosen if chosen in known else known[0]


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


def seeds_text(seeds: list[int]) -> str:
    """0, 1, 2, 3 as 0-3."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
