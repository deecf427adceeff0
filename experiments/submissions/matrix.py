"""From a base spec, overrides and a matrix to resolved cells: what sets a field, and what says the same twice. Pure."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.spec import FieldError, Spec, resolved

Path = tuple[str, ...]
MAX_DEPTH = 20
KINDS = ("dataset", "model_type")  # the fields that say what a section's others are
OF_PRESET = "preset's matrix"  # stands in no submission, so nothing is told there


@dataclass(frozen=True)
class Setting:
    """One thing that a submission sets: a dotted `path` to some value. `place` is overrides, matrix, pool, or the
    matrix that a preset brings."""

    place: str
    path: str
    value: Any

    @property
    def at(self) -> Path:
        return (self.place,) if self.place == "pool" else (self.place, self.path)

    @property
    def words(self) -> str:
        return "`pool`" if self.place == "pool" else f"'{self.path}' in the {self.place}"


@dataclass(frozen=True)
class MatrixCell:
    """One combination of the matrix's values: as they were written, as they were resolved, and the spec."""

    written: dict[str, Any]
    params: dict[str, Any]
    spec: Spec


class Unreachable(ValueError):
    """A path leads through a value; `setting` is the one that cannot be set."""

    def __init__(self, setting: Setting, part: str) -> None:
        self.error = FieldError(setting.at, f"'{part}' is a value, not a section")
        super().__init__(self.error.message)


def applied(base: Mapping[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """A copy of a raw spec with the settings made. A section sets the fields that it names and leaves its others as the
    base has them; a field of that section is set afterwards, whatever stands first. Raises Unreachable."""
    tree = copy.deepcopy(dict(base))
    for setting in sorted(settings, key=lambda one: one.path.count(".")):
        _set(tree, setting)
    return tree


def _set(tree: dict[str, Any], setting: Setting) -> None:
    *parents, leaf = setting.path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise Unreachable(setting, part)
    tree[leaf] = copy.deepcopy(merged(tree.get(leaf), setting.value))


def merged(base: Any, value: Any) -> Any:
    """`value` in `base`, sections field by field; another data set or model has nothing of the base's."""
    if not isinstance(base, Mapping) or not isinstance(value, Mapping):
        return value
    if any(name in base and value.get(name, base[name]) != base[name] for name in KINDS):
        return value
    return {**base, **{name: merged(base.get(name), part) for name, part in value.items()}}


def combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def set_twice(settings: Iterable[Setting]) -> list[FieldError]:
    """Pairs of settings that set one field, each told at the deeper of the two that was sent. Values of one matrix
    path are alternatives and no pair."""
    by_path: dict[str, list[Setting]] = {}
    for setting in settings:
        by_path.setdefault(setting.path, []).append(setting)
    found: dict[tuple[Path, Path], FieldError] = {}
    for path, own in by_path.items():
        for upper in (setting for above in _above(path) for setting in by_path.get(above, ())):
            lower = own[-1] if own[-1].at != upper.at else own[0]
            if upper.at != lower.at and says(upper, path) and (lower.at, upper.at) not in found:
                told, other = (upper, lower) if lower.place == OF_PRESET else (lower, upper)
                words = f"sets a field that {other.words} sets too: '{path}'; keep one of them"
                found.setdefault((upper.at, lower.at), FieldError(told.at, words))
    return list(found.values())


def _above(path: str) -> list[str]:
    """The path and what lies above it; nothing of one deeper than any spec, so that a long text costs little."""
    parts = path.split(".", MAX_DEPTH)
    return [] if len(parts) > MAX_DEPTH else [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def says(upper: Setting, path: str) -> bool:
    """Whether `upper` says something about the field at `path`."""
    if path != upper.path and not path.startswith(f"{upper.path}."):
        return False
    value = upper.value
    for part in path[len(upper.path) + 1 :].split(".") if path != upper.path else ():
        if not isinstance(value, Mapping):
            return True
        if part not in value:
            return False
        value = value[part]
    return True


def params_of(written: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """What a cell was given, in the shape it was written, with the values that it resolved to."""
    tree = resolved(spec)
    return {path: _shaped(value, _at(tree, path)) for path, value in written.items()}


def _at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def _shaped(written: Any, meant: Any) -> Any:
    if isinstance(written, Mapping) and isinstance(meant, Mapping):
        return {key: _shaped(part, meant[key]) for key, part in written.items()}
    return meant


def same_cells(cells: Sequence[MatrixCell]) -> list[FieldError]:
    """Cells that resolve to one spec: at the path whose values say the same, or at the matrix as a whole."""
    first: dict[str, MatrixCell] = {}
    errors: dict[Path, FieldError] = {}
    for cell in cells:
        earlier = first.setdefault(_meaning(cell.spec), cell)
        if earlier is not cell:
            error = _same(earlier.written, cell.written)
            errors.setdefault(error.path, error)  # type: ignore[arg-type]
    return list(errors.values())


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> FieldError:
    differing = [path for path in one if not _spelled_alike(one[path], other[path])]
    if len(differing) == 1:
        path = differing[0]
        words = f"lists a value twice: {_text(one[path])} and {_text(other[path])} mean the same"
        return FieldError(("matrix", path), words)
    return FieldError(("matrix",), f"two cells are one and the same spec: {_text(one)} and {_text(other)}")


def listed_twice(values: Sequence[Any]) -> bool:
    """Whether a value stands there twice in one spelling, whatever it means."""
    return len({json.dumps(value, sort_keys=True) for value in values}) < len(values)


def _spelled_alike(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _meaning(spec: Spec) -> str:
    """Equal for equal specs: 2 and 2.0 are one number wherever a section takes any JSON."""
    return json.dumps(_plain({**resolved(spec), "seed": 0}), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
