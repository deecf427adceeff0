"""Names defined by an operator's package: `package.name`. The dot distinguishes them from ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from .attention_names import VARIANT_TABLE
from .base import Section, scalar

DOTTED = re.compile(r"[a-z][a-z0-9_]{0,39}\.[a-z][a-z0-9_]{0,39}")
GROUPS = ("variants", "tasks", "models", "datasets")  # entry points are in attnservice.<group>


def is_plugin(name: object) -> bool:
    return isinstance(name, str) and DOTTED.fullmatch(name) is not None


def _variant(name: str) -> str:
    if name in VARIANT_TABLE or is_plugin(name):
        return name
    known = ", ".join(f"'{own}'" for own in VARIANT_TABLE)
    raise PydanticCustomError(
        "variant", "must be one of {known}, or package.name of an installed package; you gave '{name}'",
        {"known": known, "name": name},
    )  # fmt: skip


# One of our variants, or one of a package. The form offers ours.
VariantName = Annotated[
    str, AfterValidator(_variant), WithJsonSchema({"type": "string", "enum": list(VARIANT_TABLE)}, mode="validation")
]


class PluginData(Section, extra="allow"):
    """The data of a package's task; `dataset` may name a data set of a package."""

    dataset: str
    __pydantic_extra__: dict[str, JsonValue]


class PluginModel(Section, extra="allow"):
    """The model of a package's task; `name` may name a model of a package."""

    __pydantic_extra__: dict[str, JsonValue]


Weight = Annotated[float, BeforeValidator(lambda value: scalar(value, float))]


class PluginLoss(Section, extra="allow"):
    """Weights of the package's loss terms."""

    __pydantic_extra__: dict[str, Weight]


def needs(spec: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What a resolved spec needs of a worker's packages: `<group>:<name>`, and the path of the field that needs it."""
    needed: dict[str, tuple[str, ...]] = {}
    for path, value in _leaves(spec):
        if is_plugin(value) and (group := _group(path)):
            needed.setdefault(f"{group}:{value}", path)
    return needed


def _group(path: tuple[str, ...]) -> str | None:
    places = {("task",): "tasks", ("data", "dataset"): "datasets", ("model", "name"): "models"}
    if path in places:
        return places[path]
    return "variants" if path[:2] == ("model", "attention") and path[-1] == "variant" else None


def _leaves(tree: Mapping[str, Any], parent: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*parent, key))
        else:
            yield (*parent, key), value
