"""A spec as YAML text and back, with the line of every field; `experiments.spec.yaml_text` parses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from experiments.spec import FieldError
from experiments.spec import yaml_text as spec_yaml
from experiments.spec.yaml_text import RefusedYaml, YamlError

__all__ = ["YamlError", "dump", "lines_of", "load", "values", "values_text"]


def dump(spec: Mapping[str, Any]) -> str:
    return spec_yaml.dump(dict(spec), default_flow_style=None, width=100)


def load(text: str) -> dict[str, Any]:
    """The mapping in the text. Raises YamlError with the line."""
    spec = spec_yaml.load(text)
    if not isinstance(spec, dict):
        raise YamlError("a spec is a mapping of sections, such as `task: segment`", 1)
    return spec


def values(text: str) -> list[Any]:
    """`full, no_q` as a list. Raises YamlError."""
    try:
        return list(spec_yaml.load(f"[{text}]"))
    except RefusedYaml:
        raise
    except YamlError:
        raise YamlError("separate the values by commas, for example: full, no_q") from None


def values_text(listed: Sequence[Any]) -> str:
    """The text that `values` parses into these again."""
    return spec_yaml.dump(list(listed), default_flow_style=True, width=math.inf).strip()[1:-1]


def lines_of(text: str, errors: list[FieldError]) -> dict[str, int]:
    """The line, from 1, of each wrong field; that of the nearest section where the field is missing."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    return {error.dotted: _line(root, error.path[1:]) for error in errors if error.path[:1] == ("spec",)}


def _line(node: yaml.Node | None, path: tuple[str | int, ...]) -> int:
    line = node.start_mark.line + 1 if node else 1
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            break
        matching = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        if matching is None:
            break
        key, node = matching
        line = key.start_mark.line + 1
    return line
