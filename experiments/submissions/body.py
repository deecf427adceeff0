"""The body of `POST /experiments/`: its fields and their bounds. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from experiments.spec import FieldError
from experiments.spec.errors import did_you_mean
from experiments.spec.sections.base import scalar

MAX_SEEDS = 1000
MAX_DIMENSIONS = 12
MAX_OVERRIDES = 500  # more than a spec has fields


class SubmissionError(ValueError):
    """The submission is invalid; `errors` lists every wrong field."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.dotted}: {error.message}" for error in errors))


Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]  # strict: true and 1.0 are not seeds 1


class Submission(BaseModel):
    """The body of `POST /experiments/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    project: str | None = Field(None, max_length=64)
    preset: str | None = None
    spec: dict[str, Any] | None = None
    overrides: dict[str, Any] = Field({}, max_length=MAX_OVERRIDES)
    matrix: dict[str, list[Any]] = Field({}, max_length=MAX_DIMENSIONS)
    seeds: list[Seed] = Field([], max_length=MAX_SEEDS)
    priority: Annotated[int, BeforeValidator(lambda value: scalar(value, int))] = Field(0, ge=-100, le=100)
    pool: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")
    tags: list[Annotated[str, Field(min_length=1, max_length=50)]] = Field([], max_length=20)
    notes: str = Field("", max_length=20_000)


def parse(raw: Mapping[str, Any]) -> Submission:
    """The body with all bounds checked. Raises SubmissionError that names every wrong field of the body itself."""
    if errors := [
        FieldError(path, "contains the character U+0000, which cannot be stored") for path in _nul_paths(raw)
    ]:
        raise SubmissionError(errors)
    try:
        submission = Submission.model_validate(raw)
    except ValidationError as error:
        raise SubmissionError([_plain(dict(details)) for details in error.errors()]) from None
    if (submission.preset is None) == (submission.spec is None):
        field = "preset" if submission.preset is None else "spec"
        raise SubmissionError([FieldError((field,), "set exactly one of `preset` and `spec`")])
    return submission


def _nul_paths(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a text, or a field's name, contains a NUL: PostgreSQL refuses it, and SQLite would cut the text there."""
    if isinstance(data, str) and "\0" in data:
        yield tuple(part.replace("\0", "�") if isinstance(part, str) else part for part in path)
    elif isinstance(data, Mapping):
        for name, part in data.items():
            yield from _nul_paths(name, (*path, name))
            yield from _nul_paths(part, (*path, name))
    elif isinstance(data, list | tuple):
        for index, part in enumerate(data):
            yield from _nul_paths(part, (*path, index))


def _plain(details: dict[str, Any]) -> FieldError:
    message = details["msg"]
    if details["type"] == "extra_forbidden":
        message = (
            f"unknown field '{details['loc'][-1]}'{did_you_mean(str(details['loc'][-1]), Submission.model_fields)}"
        )
    elif details["type"] == "missing":
        message = "this field is required"
    elif details["type"] == "string_too_short":
        message = "must not be empty"
    elif details["type"] == "int_type":
        message = f"must be a whole number such as 0 or 7, not {json.dumps(details['input'], default=str)[:40]}"
    return FieldError(tuple(details["loc"]), message)
