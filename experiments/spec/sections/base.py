"""Base of every section of a spec, and the one rule for reading numbers and booleans.

A number is a number, or text that spells one in decimal digits, such as "1e-4" (YAML and forms send such text). A whole
number may be written 6.0. The only booleans are `true` and `false`: neither is read as a number, and no number, "on" or
"yes" is read as a boolean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import PurePosixPath
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?", re.ASCII)
Name = TypeVar("Name", bound=str)
_LARGEST = 2.0**53  # every whole number below is exact as a float


class Section(BaseModel):
    """Base of every section: unknown fields are refused, values never change, no NaN or Inf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_rule_for_scalars(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: _of_field(cls, str(name), value) for name, value in given.items()}


class Misfit:
    """Replaces a value of the wrong type, so that pydantic reports it together with all other errors."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else repr(self.value)[:80]


def is_stored(info: ValidationInfo) -> bool:
    """Whether the spec was accepted before: contradictions in it are then read as they were trained."""
    return isinstance(info.context, dict) and info.context.get("stored") is True


def as_set(names: tuple[Name, ...], info: ValidationInfo, order: Iterable[str] = ()) -> tuple[Name, ...]:
    """Each name once, in the given order or else by alphabet, so that one set has one spelling. A stored spec keeps its
    order and so its hash."""
    if is_stored(info):
        return names
    places = {name: place for place, name in enumerate(order)}
    return tuple(sorted(set(names), key=lambda name: (places.get(name, len(places)), name)))


def _normalized(path: str, info: ValidationInfo) -> str:
    """`./a//b/` becomes `a/b`. `a/../b` is refused, since it depends on links; the worker refuses `../b`."""
    if is_stored(info):
        return path
    plain = PurePosixPath(path)
    if ".." in plain.parts[1:]:
        raise PydanticCustomError("detour", "must not contain '..'; write the path from the root")
    return str(plain)


# A file or folder below a root of the worker, in one spelling.
BelowRoot = Annotated[str, Field(max_length=400), AfterValidator(_normalized)]


def scalar(value: Any, kind: type | None) -> Any:
    """`value` as an int, float or bool where the field has that type; a Misfit where the value has another type."""
    if kind is None or value is None:
        return value
    if (kind is bool) != isinstance(value, bool):
        return Misfit(value)
    if isinstance(value, str):
        if not spells_number(value):
            return Misfit(value)
        value = _spelled(value)
    return _whole(value) if kind is int else value


def spells_number(text: str) -> bool:
    """Whether text is a number by the rule above: no spaces, underscores, hexadecimal or non-ASCII digits."""
    return len(text) <= 400 and _NUMBER.fullmatch(text) is not None


def _of_field(section: type[Section], name: str, value: Any) -> Any:
    several, kind = _kind_of(section, name)
    if several and isinstance(value, list | tuple):
        return [scalar(part, kind) for part in value]
    return value if several else scalar(value, kind)


def _spelled(text: str) -> int | float:
    """Text with digits only is an int; with a point or exponent it is an int where it is exactly whole."""
    number = float(text)
    exact = abs(number) < _LARGEST and Decimal(text) == int(number)
    return int(number) if exact else number


def _whole(number: Any) -> Any:
    exact = isinstance(number, float) and abs(number) < _LARGEST and number.is_integer()
    return int(number) if exact else number


@cache
def _kind_of(section: type[Section], field: str) -> tuple[bool, type | None]:
    """Whether the field is a tuple, and the type of its value or of each item."""
    if field not in section.model_fields:
        return False, None
    annotation = section.model_fields[field].annotation
    if get_origin(annotation) is tuple:
        return True, _kind(get_args(annotation)[0])
    return False, _kind(annotation)


def _kind(annotation: Any) -> type | None:
    """int, float or bool where a field holds one such scalar or null."""
    if annotation in (int, float, bool):
        return annotation  # type: ignore[no-any-return]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is Literal:
        kinds = {type(part) for part in parts}
        return int if kinds == {int} else None
    if origin in (Union, UnionType):
        inner: set[type | None] = {_kind(part) for part in parts if part is not type(None)}
        return inner.pop() if len(inner) == 1 else None
    return None
