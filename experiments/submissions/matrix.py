"""A base spec, overrides and a matrix become resolved cells; duplicate settings and cells are found. Pure."""

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
KINDS = ("dataset", "model_type")  # the fields that determine which others a section has
OF_PRESET = "preset's matrix"  # is in no submission, so no error points there


@dataclass(frozen=True)
class Setting:
    """A value that a submission sets at a dotted `path`. `place` is overrides, matrix, pool, or the matrix of a
    preset."""

    place: str
    path: str
    value: Any

    @property
    def location(self) -> Path:
        return (self.place,) if self.place == "pool" else (self.place, self.path)

    @property
    def text(self) -> str:
        return "`pool`" if self.place == "pool" else f"'{self.path}' in the {self.place}"


@dataclass(frozen=True)
class MatrixCell:
    """One combination of the matrix's values: as written, as resolved, and the spec."""

    written: dict[str, Any]
    params: dict[str, Any]
    spec: Spec


class Unreachable(ValueError):
    """A setting whose path leads through a value."""

    def __init__(self, setting: Setting, part: str) -> None:
        self.error = FieldError(setting.location, f"'{part}' is a value, not a section; set a field of a section")
        super().__init__(self.error.message)


def applied(base: Mapping[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """A copy of a raw spec with the settings applied. A setting of a section changes only the fields that it names;
    settings of single fields are applied after those of their sections. Raises Unreachable."""
    tree = copy.deepcopy(dict(base))
    for setting in sorted(settings, key=lambda setting: setting.path.count(".")):
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
    """`value` merged into `base`, section by section; another data set or model takes nothing from the base."""
    if not isinstance(base, Mapping) or not isinstance(value, Mapping):
        return value
    if any(name in base and value.get(name, base[name]) != base[name] for name in KINDS):
        return value
    return {**base, **{name: merged(base.get(name), part) for name, part in value.items()}}


def combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def set_twice(settings: Iterable[Setting]) -> list[FieldError]:
    """Pairs of settings that set the same field; each error points at the deeper of the two that was sent. Values of
    one matrix path are alternatives and no pair."""
    by_path: dict[str, list[Setting]] = {}
    for setting in settings:
        by_path.setdefault(setting.path, []).append(setting)
    errors: dict[tuple[Path, Path], FieldError] = {}
    for upper, lower in _pairs(by_path):
        if (lower.location, upper.location) not in errors:
            reported, other = (upper, lower) if lower.place == OF_PRESET else (lower, upper)
            text = f"sets a field that {other.text} sets too: '{lower.path}'; keep one of them"
            errors.setdefault((upper.location, lower.location), FieldError(reported.location, text))
    return list(errors.values())


def _pairs(by_path: Mapping[str, list[Setting]]) -> Iterator[tuple[Setting, Setting]]:
    """Each setting of a path or of a section around it, with a setting of that path from another place."""
    for path, own in by_path.items():
        for section in _sections_of(path):
            for upper in by_path.get(section, ()):
                lower = own[-1] if own[-1].location != upper.location else own[0]
                if upper.location != lower.location and sets(upper, path):
                    yield upper, lower


def _sections_of(path: str) -> list[str]:
    """The path and the sections around it; empty for a path deeper than any spec, so that a long one costs little."""
    parts = path.split(".", MAX_DEPTH)
    return [] if len(parts) > MAX_DEPTH else [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def sets(upper: Setting, path: str) -> bool:
    """Whether `upper` sets the field at `path`."""
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
    """The parameters of a cell: shaped as they were written, with the resolved values."""
    tree = resolved(spec)
    return {path: _shaped(value, _value_at(tree, path)) for path, value in written.items()}


def _value_at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def _shaped(written: Any, resolved_value: Any) -> Any:
    if isinstance(written, Mapping) and isinstance(resolved_value, Mapping):
        return {key: _shaped(part, resolved_value[key]) for key, part in written.items()}
    return resolved_value


def same_cells(cells: Sequence[MatrixCell]) -> list[FieldError]:
    """Cells that resolve to the same spec: an error at the path with equal values, or at the whole matrix."""
    first: dict[str, MatrixCell] = {}
    errors: dict[Path, FieldError] = {}
    for cell in cells:
        earlier = first.setdefault(_canonical(cell.spec), cell)
        if earlier is not cell:
            error = _same(earlier.written, cell.written)
            errors.setdefault(error.path, error)  # type: ignore[arg-type]
    return list(errors.values())


def _same(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> FieldError:
    differing = [path for path in earlier if not _spelled_alike(earlier[path], later[path])]
    if len(differing) == 1:
        path = differing[0]
        text = f"lists a value twice: {_text(earlier[path])} and {_text(later[path])} mean the same"
        return FieldError(("matrix", path), text)
    return FieldError(("matrix",), f"two cells resolve to the same spec: {_text(earlier)} and {_text(later)}")


def listed_twice(values: Sequence[Any]) -> bool:
    """Whether a value is listed twice in the same spelling."""
    return len({json.dumps(value, sort_keys=True) for value in values}) < len(values)


def _spelled_alike(value: Any, other: Any) -> bool:
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _canonical(spec: Spec) -> str:
    """Equal for equal specs: 2 and 2.0 are the same number where a section takes any JSON."""
    return json.dumps(_plain({**resolved(spec), "seed": 0}), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
