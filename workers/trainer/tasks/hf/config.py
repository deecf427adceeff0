"""Whether a configuration of transformers uses what a spec gives it.

The library silently keeps any key: `n_layr: 1` becomes an attribute that no model reads, of two names of one field
the later one wins, and a class may overwrite what it was given. Here each of these is an error of its field.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from experiments.spec import FieldError, SpecError, did_you_mean

Path = tuple[str, ...]
_OF_BASE = {"num_labels", "output_attentions", "per_layer_config", "torch_dtype"}  # of every class
_OF_ROPE = {"rope_scaling", "rope_theta", "partial_rotary_factor"}  # older names of `rope_parameters`
_WITHOUT_EFFECT = {"name_or_path"}
_trained_before: ContextVar[bool] = ContextVar("trained_before", default=False)


@contextmanager
def trained_before(really: bool = True) -> Iterator[None]:
    """Inside, configurations are not checked: a checkpoint resumes or answers a question."""
    token = _trained_before.set(really or _trained_before.get())
    try:
        yield
    finally:
        _trained_before.reset(token)


def check_used(config: Any, given: Mapping[str, Any]) -> None:
    """Raises SpecError that names every key of `given` that `config`, which was made of it, does not use."""
    if not _trained_before.get() and (errors := list(_unused(config, given, ("model", "config")))):
        raise SpecError(errors)


def _unused(config: Any, given: Mapping[str, Any], path: Path) -> Iterator[FieldError]:
    fields = _fields(config)
    for name, value in given.items():
        if name == "model_type":
            continue
        if problem := _problem(config, given, name, fields):
            yield FieldError((*path, name), problem)
        elif isinstance(value, Mapping):
            yield from _unused_inside(config, name, value, (*path, name))


def _problem(config: Any, given: Mapping[str, Any], name: str, fields: set[str]) -> str:
    """Why the key is not used; empty if it is."""
    owner, aliases, value = type(config).__name__, type(config).attribute_map, given[name]
    if name not in fields and not _changes_another(config, given, name):
        return f"transformers' {owner} has no field '{name}'{did_you_mean(name, fields)}"
    field = aliases.get(name, name)
    same = next((other for other in given if other != name and aliases.get(other, other) == field), name)
    if given[same] != value:
        return f"is the same field as '{same}', which has another value; keep one of them"
    if isinstance(value, bool | int | float) and (kept := _kept(config, name, value)) != value:
        return f"is not used: with the other fields, transformers' {owner} sets it to {kept}"
    return ""


def _kept(config: Any, name: str, value: Any) -> Any:
    """The configuration's value; `value` if it has it under another name, or for some layers only."""
    try:
        return getattr(config, name, value)
    except Exception:  # one name for fields that differ between layers
        return value


def _unused_inside(config: Any, name: str, value: Mapping[str, Any], path: Path) -> Iterator[FieldError]:
    inner = getattr(config, name, None)
    if hasattr(inner, "attribute_map"):
        yield from _unused(inner, value, path)
    elif name in {"rope_parameters", "rope_scaling"}:
        yield from _unused_rope(value, _rope_names(config), path)


def _unused_rope(value: Mapping[str, Any], known: set[str], path: Path) -> Iterator[FieldError]:
    """Of the parameters of rotary embeddings; some models have them for each kind of layer."""
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _unused_rope(part, known, (*path, name))
        elif name not in known:
            yield FieldError((*path, name), f"rotary embeddings have no parameter '{name}'{did_you_mean(name, known)}")


def _rope_names(config: Any) -> set[str]:
    rope = import_module("transformers.modeling_rope_utils")
    own = getattr(type(config)(), "rope_parameters", None) or {}
    return {*rope.RopeParameters.__annotations__, "type", *own, *_texts_of(type(config))}


def _fields(config: Any) -> set[str]:
    """The names that the class takes: its fields, their other names, and older ones that it turns into them."""
    owner = type(config)
    parameters = inspect.signature(owner.__init__).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD}
    for base in _own(owner):
        names |= {name for name, member in vars(base).items() if getattr(member, "fset", None)}
    names |= {*owner.attribute_map, *_OF_BASE, *_texts_of(owner)}
    names |= _OF_ROPE if hasattr(config, "rope_parameters") else set()
    return {name for name in names - {"self", *_WITHOUT_EFFECT} if not name.startswith("_")}


def _texts_of(owner: type) -> set[str]:
    """The names that a class of the library, below its base, looks up in the keys that it is given."""
    names: set[str] = set()
    for base in _own(owner):
        if method := vars(base).get("__post_init__"):
            code = getattr(inspect.unwrap(method), "__code__", None)
            names |= {text for text in getattr(code, "co_consts", ()) if isinstance(text, str) and text.isidentifier()}
    return names


def _own(owner: type) -> list[type]:
    """The class and its bases, below the library's common base."""
    return [base for base in owner.__mro__ if base.__module__.startswith("transformers.models.")]


def _changes_another(config: Any, given: Mapping[str, Any], name: str) -> bool:
    """Whether another field changes without this key, so that the class uses it."""
    if name in _WITHOUT_EFFECT:
        return False
    whole = {key: value for key, value in given.items() if key != "model_type"}
    rest = {key: value for key, value in whole.items() if key != name}
    try:
        made, without = (type(config)(**copy.deepcopy(fields)).to_dict() for fields in (whole, rest))
    except Exception:  # it cannot do without
        return True
    return bool(_without(without, name) != _without(made, name))


def _without(tree: Any, name: str) -> Any:
    """The tree without the fields of that name at any depth."""
    if isinstance(tree, Mapping):
        return {key: _without(part, name) for key, part in tree.items() if key != name}
    return [_without(part, name) for part in tree] if isinstance(tree, list | tuple) else tree
