"""Errors of a spec: which field is wrong, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class FieldError:
    """One error: `path` leads to the field, `message` says what to do about it."""

    path: tuple[str | int, ...]
    message: str

    @property
    def dotted(self) -> str:
        return ".".join(str(part) for part in self.path)


class SpecError(ValueError):
    """The spec is invalid; `errors` lists every wrong field."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.dotted}: {error.message}" for error in errors))


Home = tuple[object, object]  # a task and, below `data`, a data set
# What the value must be, by the type of pydantic's error.
_WANTED = {
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "greater_than_equal": "at least {ge}",
    "greater_than": "greater than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def message(
    details: ErrorDetails, path: tuple[str | int, ...], raw: Mapping[str, Any], tasks: Mapping[str, type[BaseModel]]
) -> str:
    """`raw` is the whole spec, `tasks` the model of each task: together they tell where an unknown field belongs."""
    context = details.get("ctx", {})
    given = f"; you gave {details['input']!r}" if not isinstance(details["input"], Mapping) else ""
    if wanted := _WANTED.get(details["type"]):
        return f"must be {wanted.format(**context)}{given}"
    match details["type"]:
        case "extra_forbidden":
            return _unknown_field(path, raw, tasks)
        case "missing":
            return "this field is required"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            return f"must be one of {expected}{given}"
        case "union_tag_not_found":
            return "names no data set: set `dataset`"
        case _:
            return details["msg"]


def _unknown_field(path: tuple[str | int, ...], raw: Mapping[str, Any], tasks: Mapping[str, type[BaseModel]]) -> str:
    """An unknown name is a misspelling, or a field of another task or data set."""
    name, homes, here = str(path[-1]), _homes(path, tasks), _home_of(path, raw)
    own = sorted({field for home, section in homes if home == here for field in section.model_fields})
    elsewhere = [home for home, section in homes if name in section.model_fields]
    if elsewhere and name not in own:
        return _belongs_elsewhere(name, elsewhere, here)
    known = f"; known here: {', '.join(own)}" if own else ""
    return f"unknown field '{name}'{did_you_mean(name, own) or known}"


def _home_of(path: tuple[str | int, ...], raw: Mapping[str, Any]) -> Home:
    data = raw.get("data") if path[0] == "data" else None
    return raw.get("task"), data.get("dataset") if isinstance(data, Mapping) else None


def _belongs_elsewhere(name: str, homes: list[Home], here: Home) -> str:
    task, dataset = here
    if dataset is None:
        return f"'{name}' is a field of {_listed('task', [home[0] for home in homes])}, not of {task}"
    return f"'{name}' is a field of {_listed('data set', [home[1] for home in homes])}, not of {dataset}"


def _listed(word: str, names: Iterable[object]) -> str:
    known = list(dict.fromkeys(map(str, names)))
    return f"{word} {known[0]}" if len(known) == 1 else f"the {word}s {', '.join(known)}"


def _homes(path: tuple[str | int, ...], tasks: Mapping[str, type[BaseModel]]) -> list[tuple[Home, type[BaseModel]]]:
    """The sections at the unknown field's place, in each task and each of its data sets."""
    homes: list[tuple[Home, type[BaseModel]]] = []
    for task, model in tasks.items():
        sections = [model]
        for part in path[:-1]:
            sections = [sub for section in sections for sub in _sections(section, str(part))]
        homes += [((task, _dataset(section) if path[0] == "data" else None), section) for section in sections]
    return homes


def _dataset(section: type[BaseModel]) -> object:
    field = section.model_fields.get("dataset")
    return get_args(field.annotation)[0] if field is not None else None


def _sections(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = model.model_fields.get(name)
    if field is None:
        return []
    types = [field.annotation, *get_args(field.annotation)]
    return [part for part in types if isinstance(part, type) and issubclass(part, BaseModel)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: a name with the same last part, else one with a similar spelling, else nothing."""
    names = list(known)
    same = [candidate for candidate in names if candidate.endswith((f".{name}", f"/{name}"))]
    close = same[:1] or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown_choice(value: object, names: list[str]) -> str:
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"must be one of {', '.join(names)}; you gave {value!r}{hint}"
