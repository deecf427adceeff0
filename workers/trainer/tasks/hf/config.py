"""Whether a configuration of transformers uses what a spec gives it.

The library keeps any key and says nothing: `n_layr: 1` becomes an attribute that no model reads, of two names of one
field the later one counts, and a class may overwrite what it was given. Here each of these is an error at its field.
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
_OF_BASE = {
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "torch_dtype",
}  # every class takes them besides its own fields
_OF_ROPE = {"rope_scaling", "rope_theta", "partial_rotary_factor"}  # older names, which go into `rope_parameters`
_WITHOUT_EFFECT = {"name_or_path"}
_trained_before: ContextVar[bool] = ContextVar("trained_before", default=False)


@contextmanager
def trained_before(really: bool = True) -> Iterator[None]:
    """Inside, a configuration is read as it was trained: a checkpoint of it goes on, or is asked a question."""
    token = _trained_before.set(really or _trained_before.get())
    try:
        yield
    finally:
        _trained_before.reset(token)


def check_used(config: Any, given: Mapping[str, Any]) -> None:
    """Raises SpecError that names every key of `given` that `config`, which was made of it, does not use."""
    if errors := [] if _trained_before.get() else list(_unused(config, given, ("model", "config"))):
        raise SpecError(errors)


def _unused(config: Any, given: Mapping[str, Any], at: Path) -> Iterator[FieldError]:
    known, real, name_of = _fields(config), type(config).attribute_map, type(config).__name__
    for name, value in given.items():
        same = next(
            (other for other in given if other != name and real.get(other, other) == real.get(name, name)), None
        )
        if name == "model_type":
            continue
        if name not in known and not _changes_another(config, given, name):
            message = f"transformers' {name_of} has no field '{name}'{did_you_mean(name, known)}"
            yield FieldError((*at, name), message)
        elif same is not None and given[same] != value:
            yield FieldError((*at, name), f"is the same field as '{same}', which has another value; keep one of them")
        elif isinstance(value, Mapping):
            yield from _unused_inside(config, name, value, (*at, name))
        elif isinstance(value, bool | int | float) and (kept := _kept(config, name, value)) != value:
            yield FieldError(
                (*at, name), f"is not used: with the other fields, transformers' {name_of} makes it {kept}"
            )


def _kept(config: Any, name: str, value: Any) -> Any:
    """What the configuration has now; `value` where it has it under another name, or for some layers alone."""
    try:
        return getattr(config, name, value)
    except Exception:  # one name for fields that differ between layers
        return value


def _unused_inside(config: Any, name: str, value: Mapping[str, Any], at: Path) -> Iterator[FieldError]:
    inner = getattr(config, name, None)
    if hasattr(inner, "attribute_map"):
        yield from _unused(inner, value, at)
    elif name in {"rope_parameters", "rope_scaling"}:
        yield from _unused_rope(value, _rope_names(config), at)


def _unused_rope(value: Mapping[str, Any], known: set[str], at: Path) -> Iterator[FieldError]:
    """Of the parameters of rotary embeddings; some models have them for each kind of layer."""
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _unused_rope(part, known, (*at, name))
        elif name not in known:
            yield FieldError((*at, name), f"rotary embeddings have no parameter '{name}'{did_you_mean(name, known)}")


def _rope_names(config: Any) -> set[str]:
    rope = import_module("transformers.modeling_rope_utils")
    own = getattr(type(config)(), "rope_parameters", None) or {}
    return {*rope.RopeParameters.__annotations__, "type", *own, *_texts_of(type(config))}


def _fields(config: Any) -> set[str]:
    """The names that the class takes: its fields, their other names, and older ones that it turns into them."""
    owner = type(config)
    given = {
        name for name, item in inspect.signature(owner.__init__).parameters.items() if item.kind != item.VAR_KEYWORD
    }
    settable = {name for each in _own(owner) for name, item in vars(each).items() if getattr(item, "fset", None)}
    older = _OF_ROPE if hasattr(config, "rope_parameters") else set()
    found = {*given, *settable, *owner.attribute_map, *_OF_BASE, *older, *_texts_of(owner)} - {"self", *_WITHOUT_EFFECT}
    return {name for name in found if not name.startswith("_")}


def _texts_of(owner: type) -> set[str]:
    """The names that a class of the library, below its base, looks for by itself among the keys that it is given."""
    found: set[str] = set()
    for each in _own(owner):
        if made := vars(each).get("__post_init__"):
            code = getattr(inspect.unwrap(made), "__code__", None)
            found |= {text for text in getattr(code, "co_consts", ()) if isinstance(text, str) and text.isidentifier()}
    return found


def _own(owner: type) -> list[type]:
    """The class and those above it, below the library's base of all."""
    return [each for each in owner.__mro__ if each.__module__.startswith("transformers.models.")]


def _changes_another(config: Any, given: Mapping[str, Any], name: str) -> bool:
    """Whether some other field is another one without this key: then the class did use it."""
    if name in _WITHOUT_EFFECT:
        return False
    whole = {key: value for key, value in given.items() if key != "model_type"}
    rest = {key: value for key, value in whole.items() if key != name}
    try:
        made, without = (type(config)(**copy.deepcopy(fields)).to_dict() for fields in (whole, rest))
    except Exception:  # it cannot do without
        return True
    return bool(_apart(without, name) != _apart(made, name))


def _apart(tree: Any, name: str) -> Any:
    """Without the field of that name, wherever it stands."""
    if isinstance(tree, Mapping):
        return {key: _apart(part, name) for key, part in tree.items() if key != name}
    return [_apart(part, name) for part in tree] if isinstance(tree, list | tuple) else tree
