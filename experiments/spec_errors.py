"""What is wrong with a spec, in words that lead to the field."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: `path` leads to the field, `message` says what to do about it."""

    path: tuple[str | int, ...]
    message: str

    @property
    def dotted(self) -> str:
        return ".".join(str(part) for part in self.path)


class SpecError(ValueError):
    """The spec is not valid; `errors` lists every field that is wrong."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.dotted}: {error.message}" for error in errors))


def message(item: ErrorDetails, path: tuple[str | int, ...], models: Iterable[Any]) -> str:
    context = item.get("ctx", {})
    given = f"; you gave {item['input']!r}" if not isinstance(item["input"], Mapping) else ""
    match item["type"]:
        case "greater_than_equal":
            return f"must be at least {context['ge']}{given}"
        case "greater_than":
            return f"must be greater than {context['gt']}{given}"
        case "less_than_equal":
            return f"must be at most {context['le']}{given}"
        case "less_than":
            return f"must be less than {context['lt']}{given}"
        case "extra_forbidden":
            return _unknown_field(path, models)
        case "missing":
            return "this field is required"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            return f"must be one of {expected}{given}"
        case "union_tag_not_found":
            return "names no dataset: set `dataset`"
        case "int_from_float" | "int_parsing" | "int_type":
            return f"must be a whole number{given}"
        case _:
            return item["msg"]


def _unknown_field(path: tuple[str | int, ...], models: Iterable[Any]) -> str:
    names = sorted(_known_names(path, models))
    close = difflib.get_close_matches(str(path[-1]), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(names)}" if names else ""
    return f"unknown field '{path[-1]}'{hint}"


def _known_names(path: tuple[str | int, ...], models: Iterable[Any]) -> set[str]:
    """Names that some task allows beside the unknown one."""
    models = list(models)
    for part in path[:-1]:
        models = [sub for model in models for sub in _sections(model, str(part))]
    return {name for model in models for name in model.model_fields}


def _sections(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = model.model_fields.get(name)
    if field is None:
        return []
    candidates = [field.annotation, *get_args(field.annotation)]
    return [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]


def unknown_choice(value: object, names: list[str]) -> str:
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"must be one of {', '.join(names)}; you gave {value!r}{hint}"
