"""The spec's JSON schema as form sections, and the typed text as values of a raw spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from experiments.pages.http import yaml_text
from experiments.spec import TASKS
from experiments.spec import yaml_text as spec_yaml
from experiments.spec.sections.base import spells_number

# Shown elsewhere on the page: task and dataset at the top, seeds in their own field.
_ELSEWHERE = {"task", "seed", "data.dataset"}
TASK_TITLES = {
    "segment": "Prompted segmentation",
    "classify": "Image classification",
    "pointer": "Pointer lookup",
    "roles": "Semantic roles",
    "language": "Next-character prediction",
    "hf": "Hugging Face model",
}
_TITLES = {
    "data": "Data",
    "model": "Model",
    "model.attention": "Attention",
    "model.attention.by_kind": "Attention by site kind",
    "loss": "Loss weights",
    "train": "Training",
}


@dataclass(frozen=True)
class FormField:
    """One input: `kind` is int, float, text, flag, choice, many (choices), list or mapping (as YAML)."""

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
        """The bounds as text beside the label."""
        return ", ".join([*self._range(), *(["or empty"] if self.optional else [])])

    def _range(self) -> Iterator[str]:
        if self.low is not None and self.high is not None and not self.low_open and not self.high_open:
            yield f"{_plain(self.low)} to {_plain(self.high)}"
            return
        if self.low is not None:
            yield f"{'>' if self.low_open else '≥'} {_plain(self.low)}"
        if self.high is not None:
            yield f"{'<' if self.high_open else '≤'} {_plain(self.high)}"


@dataclass(frozen=True)
class FormSection:
    """A section of the spec with its fields, in the order of the spec."""

    path: str
    title: str
    help: str
    fields: tuple[FormField, ...]


@cache
def _schema(task: str) -> Mapping[str, Any]:
    """Takes 6 to 8 ms to make, never changes, and a page asks for it many times."""
    return TASKS[task].model_json_schema()


def datasets(task: str) -> list[str]:
    """Datasets that a task accepts, the default first."""
    schema = _schema(task)
    branches = _branches(schema["properties"]["data"], schema["$defs"])
    return [str(branch["properties"]["dataset"]["const"]) for branch in branches]


@cache
def sections(task: str, dataset: str) -> tuple[FormSection, ...]:
    """The form's sections for a task and a dataset."""
    schema = _schema(task)
    names = ("data", "model", "loss", "train", "optimizer", "record", "resources")
    parts = {name: schema["properties"][name] for name in names if name in schema["properties"]}
    return tuple(chain.from_iterable(_sections(name, node, schema["$defs"], dataset) for name, node in parts.items()))


def fields(task: str, dataset: str) -> dict[str, FormField]:
    """Every field of the form by its dotted path."""
    return {field.path: field for section in sections(task, dataset) for field in section.fields}


def mappings(spec: Mapping[str, Any], task: str, dataset: str) -> dict[str, Any]:
    """Values of the fields that hold a whole mapping, by dotted path."""
    paths = [path for path, field in fields(task, dataset).items() if field.kind == "mapping"]
    return {path: value_at(spec, path, None) for path in paths}


def value_at(spec: Mapping[str, Any], path: str, otherwise: Any) -> Any:
    """The value at a dotted path; `otherwise` where the spec has none."""
    value: Any = spec
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return otherwise
        value = value[part]
    return value


def _sections(path: str, node: Mapping[str, Any], defs: Mapping[str, Any], dataset: str) -> Iterator[FormSection]:
    branches = _branches(node, defs)
    branch = next((branch for branch in branches if _dataset(branch) == dataset), branches[0])
    leaves = _properties(path, branch)
    nested = {inner: leaves.pop(inner) for inner, child in list(leaves.items()) if "$ref" in child}
    if path.endswith(".by_kind"):  # four kinds with one field each: together, not four sections of one line
        for inner, child in nested.items():
            leaves |= _properties(inner, _branches(child, defs)[0])
        nested = {}
    title = _TITLES.get(path, path.rpartition(".")[2].replace("_", " ").capitalize())
    yield FormSection(path, title, _description(branch), tuple(map(_field, leaves.keys(), leaves.values())))
    for inner, child in nested.items():
        yield from _sections(inner, child, defs, dataset)


def _properties(path: str, branch: Mapping[str, Any]) -> dict[str, Any]:
    """A schema's properties by their dotted paths."""
    properties = {f"{path}.{name}": node for name, node in branch["properties"].items()}
    return {path: node for path, node in properties.items() if path not in _ELSEWHERE}


def _branches(node: Mapping[str, Any], defs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The object schemas of a node: one, or one for each dataset."""
    options = node.get("oneOf") or node.get("anyOf") or [node]
    return [defs[option["$ref"].rpartition("/")[2]] if "$ref" in option else option for option in options]


def _dataset(branch: Mapping[str, Any]) -> str | None:
    value = branch["properties"].get("dataset", {}).get("const")
    return None if value is None else str(value)


def _description(node: Mapping[str, Any]) -> str:
    return " ".join(str(node.get("description", "")).split())


def _field(path: str, node: Mapping[str, Any]) -> FormField:
    options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    inner = options[0]
    kind, choices = _kind(inner)
    return FormField(
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


def typed(field: FormField, values: list[str]) -> Any:
    """The JSON value that was typed; text that spells none stays text, for the spec to refuse."""
    if field.kind == "many":
        return list(filter(None, values))
    if field.kind == "flag":
        return "on" in values
    text = values[-1].strip() if values else ""
    if field.optional and text.lower() in {"", "null", "none"}:
        return None
    if field.kind == "choice":
        return {str(choice): choice for choice in field.choices}.get(text, text)
    return _PARSERS.get(field.kind, str)(text)


def _mapping(text: str) -> Any:
    try:
        return spec_yaml.load(text)
    except spec_yaml.YamlError:
        return text


def _list(text: str) -> Any:
    """Values separated by commas, in brackets or without them."""
    try:
        listed = yaml_text.values(text)
    except yaml_text.YamlError:
        return text
    return listed[0] if len(listed) == 1 and isinstance(listed[0], list) else listed


def number(text: str) -> int | float | str:
    """A whole number, else a decimal one, else the text itself, which the spec then refuses."""
    if not spells_number(text):
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


_PARSERS: dict[str, Callable[[str], Any]] = {"mapping": _mapping, "list": _list, "int": number, "float": number}
