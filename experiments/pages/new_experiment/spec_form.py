"""The spec's JSON schema as form sections, and what was typed into them as a raw spec again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from experiments.pages.http import yaml_text as yamltext
from experiments.spec import TASKS
from experiments.spec import yaml_text as spec_yaml
from experiments.spec.sections.base import spells_number

# Shown elsewhere on the page: discriminators at the top, seeds in a field of their own.
_ELSEWHERE = {"task", "seed", "data.dataset"}
TASK_TITLES = {
    "segment": "Prompted segmentation",
    "classify": "Image classification",
    "pointer": "Pointer lookup",
    "roles": "Roles in a sentence",
    "language": "Next character",
    "hf": "A model of transformers",
}
_TITLES = {
    "data": "Data",
    "model": "Model",
    "model.attention": "Attention",
    "model.attention.by_kind": "Attention by kind of site",
    "loss": "Loss weights",
    "train": "Training",
}


@dataclass(frozen=True)
class Field:
    """One input: `kind` is int, float, text, flag, choice, many of them, or as YAML list or mapping."""

    path: str
    kind: str
    help: str
    default: Any
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    optional: bool = False

    @property
    def label(self) -> str:
        _, by_kind, own = self.path.partition(".by_kind.")
        return own if by_kind else self.path.rpartition(".")[2]

    @property
    def bounds(self) -> str:
        """The bounds in words, short enough to stand beside the label."""
        low = "" if self.low is None else f"{'>' if self.low_open else '≥'} {_plain(self.low)}"
        high = "" if self.high is None else f"{'<' if self.high_open else '≤'} {_plain(self.high)}"
        if low and high and not self.low_open and not self.high_open:
            low, high = f"{_plain(self.low)} to {_plain(self.high)}", ""
        return ", ".join(filter(None, (low, high, "or empty" if self.optional else "")))


@dataclass(frozen=True)
class Section:
    """Fields that belong together, in the order of the spec."""

    path: str
    title: str
    help: str
    fields: tuple[Field, ...]


def datasets(task: str) -> list[str]:
    """Datasets that a task accepts, first the usual one."""
    schema = TASKS[task].model_json_schema()
    branches = _branches(schema["properties"]["data"], schema["$defs"])
    return [str(branch["properties"]["dataset"]["const"]) for branch in branches]


@cache
def sections(task: str, dataset: str) -> tuple[Section, ...]:
    """The form of one branch of the union."""
    schema = TASKS[task].model_json_schema()
    found = []
    for name in ("data", "model", "loss", "train", "optimizer", "record", "resources"):
        if name in schema["properties"]:
            found += list(_sections(name, schema["properties"][name], schema["$defs"], dataset))
    return tuple(found)


def fields(task: str, dataset: str) -> dict[str, Field]:
    """Every field of the branch by its dotted path."""
    return {field.path: field for section in sections(task, dataset) for field in section.fields}


def mappings(spec: Mapping[str, Any], task: str, dataset: str) -> dict[str, Any]:
    """Values of the fields that hold a whole mapping, by dotted path."""
    own = (path for path, field in fields(task, dataset).items() if field.kind == "mapping")
    return {path: value_at(spec, path, None) for path in own}


def value_at(spec: Mapping[str, Any], path: str, otherwise: Any) -> Any:
    """What stands at a dotted path; `otherwise` where the spec says nothing there."""
    here: Any = spec
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return otherwise
        here = here[part]
    return here


def _sections(path: str, node: Mapping[str, Any], defs: Mapping[str, Any], dataset: str) -> Iterator[Section]:
    branches = _branches(node, defs)
    chosen = next((b for b in branches if _constant(b) == dataset), branches[0])
    own: list[tuple[str, Any]] = []
    nested: list[tuple[str, Any]] = []
    for name, item in chosen["properties"].items():
        inner = f"{path}.{name}"
        if inner in _ELSEWHERE:
            continue
        (nested if "$ref" in item else own).append((inner, item))
    if path.endswith(".by_kind"):  # four kinds with one field each: together, not four sections of one line
        own, nested = [(f"{at}.{name}", item) for at, ref in nested for name, item in _only(ref, defs)], []
    title = _TITLES.get(path, path.rpartition(".")[2].replace("_", " ").capitalize())
    yield Section(path, title, _first_line(chosen), tuple(_field(inner, item) for inner, item in own))
    for inner, item in nested:
        yield from _sections(inner, item, defs, dataset)


def _only(ref: Mapping[str, Any], defs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(_branches(ref, defs)[0]["properties"].items())


def _branches(node: Mapping[str, Any], defs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The object schemas a node may be: one, or several told apart by a discriminator."""
    options = node.get("oneOf") or node.get("anyOf") or [node]
    return [defs[option["$ref"].rpartition("/")[2]] if "$ref" in option else option for option in options]


def _constant(branch: Mapping[str, Any]) -> str | None:
    value = branch["properties"].get("dataset", {}).get("const")
    return None if value is None else str(value)


def _first_line(node: Mapping[str, Any]) -> str:
    return " ".join(str(node.get("description", "")).split())


def _field(path: str, node: Mapping[str, Any]) -> Field:
    options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    inner = options[0]
    kind, choices = _kind(inner)
    return Field(
        path,
        kind,
        str(node.get("description", "")),
        node.get("default"),
        choices,
        low=inner.get("minimum", inner.get("exclusiveMinimum")),
        high=inner.get("maximum", inner.get("exclusiveMaximum")),
        low_open="exclusiveMinimum" in inner,
        high_open="exclusiveMaximum" in inner,
        optional=len(node.get("anyOf", [])) > len(options),
    )


def _kind(node: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    if "enum" in node:
        return "choice", tuple(node["enum"])
    if "const" in node:
        return "choice", (node["const"],)
    if node.get("type") == "array":
        choices = tuple(node["items"].get("enum", ()))
        return ("many" if choices else "list"), choices
    names = {"integer": "int", "number": "float", "boolean": "flag", "object": "mapping"}
    return names.get(str(node.get("type")), "text"), ()


def _plain(bound: float | None) -> str:
    return f"{int(bound):,}" if bound is not None and bound == int(bound) else f"{bound:g}"


def typed(field: Field, values: list[str]) -> Any:
    """What was typed, as JSON has it; text that spells no value stays text, for the spec to refuse."""
    if field.kind == "many":
        return [value for value in values if value]
    if field.kind == "flag":
        return "on" in values
    text = (values[-1] if values else "").strip()
    if field.optional and text.lower() in {"", "null", "none"}:
        return None
    if field.kind == "choice":
        return next((choice for choice in field.choices if str(choice) == text), text)
    if field.kind == "mapping":
        return _mapping(text)
    if field.kind == "list":
        return _list(text)
    return number(text) if field.kind in {"int", "float"} else text


def _mapping(text: str) -> Any:
    try:
        return spec_yaml.load(text)
    except spec_yaml.YamlError:
        return text


def _list(text: str) -> Any:
    """Values separated by commas, in brackets or without them."""
    try:
        listed = yamltext.values(text)
    except yamltext.YamlError:
        return text
    return listed[0] if len(listed) == 1 and isinstance(listed[0], list) else listed


def number(text: str) -> int | float | str:
    """A whole number, else a real one, else the text itself, which the spec then refuses."""
    if not spells_number(text):
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
