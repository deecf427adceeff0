"""A spec as YAML text and back, with the line of every field. Safe loading, no aliases, bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from experiments.spec import FieldError

MAX_TEXT = 64 * 1024
_DEPTH = 20


class YamlError(ValueError):
    """The text is no spec; `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(message)


def dump(spec: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def load(text: str) -> dict[str, Any]:
    """The mapping that the text spells. Raises YamlError with the line."""
    if len(text) > MAX_TEXT:
        raise YamlError(f"a spec has at most {MAX_TEXT // 1024} KiB")
    try:
        _check(text)
        spec = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise YamlError(str(error.problem or "cannot be read"), mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error if isinstance(error, YamlError) else YamlError(f"cannot be read: {error}") from None
    if not isinstance(spec, dict):
        raise YamlError("a spec is a mapping of sections, such as `task: segment`", 1)
    return {str(key): plain(value) for key, value in spec.items()}


def values(text: str) -> list[Any]:
    """`full, no_q` as a list. Raises YamlError."""
    flow = f"[{text[:MAX_TEXT]}]"
    try:
        _check(flow)
        return list(plain(yaml.safe_load(flow)))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise YamlError("separate the values by commas, for example: full, no_q") from None


def _check(text: str) -> None:
    """Aliases can spell a gigabyte in a line, and depth can end the stack: refuse both before building anything."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise YamlError("anchors and aliases are not allowed in a spec", _line_of(event))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise YamlError(f"nested deeper than {_DEPTH} levels", _line_of(event))


def _line_of(event: yaml.Event) -> int | None:
    return event.start_mark.line + 1 if event.start_mark else None


def plain(value: Any) -> Any:
    """JSON types only: YAML's dates become text, and 1e-3 a number (YAML 1.1 reads it as text)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return _real(value)
    return value if isinstance(value, bool | int | float | None) else str(value)


def _real(text: str) -> str | float:
    if text[:1] not in set("0123456789+-.") or "e" not in text.lower():
        return text
    try:
        return float(text)
    except ValueError:
        return text


def lines_of(text: str, errors: list[FieldError]) -> dict[str, int]:
    """The line, from 1, where each wrong field stands; the nearest section for one that is missing."""
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
        found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
