"""The one reader of YAML, for the form's editor, the trainer's command line and presets. Pure, no Django.

Nothing is dropped or guessed: duplicate keys, merge keys, anchors and aliases are refused with their line. Plain
scalars are read as in YAML 1.2, so that 1e-4 is a number, 010 is ten, and on, yes and 1:30 are text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_DEPTH = 20
MAX_BYTES = 128 * 2**10  # of a text; libyaml reads that much in a tenth of a second


class YamlError(ValueError):
    """The text cannot be read; `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(message)


class RefusedYaml(YamlError):
    """YAML that is refused even if it is well-formed: too long, a duplicate key, a merge key, an anchor or an alias."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml: twenty times as fast
    """Reads the scalars of JSON; everything else is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as another type."""

    yaml_implicit_resolvers: dict[str, Any] = {}


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
}
for _kind, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z", re.ASCII), _first)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits = loader.construct_scalar(node)
    if len(digits) > 400:
        raise YamlError("a number has more than 400 digits; write a shorter one", _line(node))
    return int(digits)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", loader.construct_scalar(node).lower()))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    """Keys are text, as in JSON: 1 and "1" are the same key, and no key may be repeated."""
    members: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError("a key must be a single word, not a list or a mapping", _line(key))
        if key.value == "<<" and not key.style:  # plain: None in Python, empty in libyaml
            raise RefusedYaml("merge keys (<<) are not allowed in a spec", _line(key))
        name = _name(loader, key)
        if name in members:
            raise RefusedYaml(f"duplicate key '{name}': it was set on line {lines[name]} already", _line(key))
        members[name], lines[name] = loader.construct_object(value, deep=True), _line(key)
    return members


def _name(loader: _Loader, key: yaml.ScalarNode) -> str:
    if key.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:str"):
        return str(loader.construct_object(key))
    return str(key.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load(text: str) -> Any:
    """The value of the text, in JSON's types. Raises YamlError, with the line where it is known."""
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise YamlError(str(error.problem or "cannot be read"), mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error if isinstance(error, YamlError) else YamlError(f"cannot be read: {error}") from None


def dump(tree: Any, **style: Any) -> str:
    """The text that `load` reads as `tree` again."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)
    return text


def _check(text: str) -> None:
    """Refuse aliases, which can expand to gigabytes, and deep nesting, which exhausts the stack, before building."""
    if (size := len(text.encode("utf-8", "surrogatepass"))) > MAX_BYTES:
        raise RefusedYaml(f"the text has {size:,} bytes; at most {MAX_BYTES:,} are allowed")
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RefusedYaml("anchors and aliases are not allowed in a spec", _line(event))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise YamlError(f"nested deeper than {_DEPTH} levels", _line(event))


def _line(place: yaml.Node | yaml.Event) -> int:
    return place.start_mark.line + 1 if place.start_mark else 1
