"""Query parameters as pydantic models: one source of what is accepted and documented."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from django.http import QueryDict
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from experiments.spec import FieldError
from experiments.spec.errors import did_you_mean

from .problems import Invalid

MAX_ID = 2**63 - 1
MAX_PAGE = 1000


class Query(BaseModel):
    """Base of all query models. `free_prefixes` are prefixes of parameters that the view reads itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def free_prefixes(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def read(cls, given: QueryDict) -> Self:
        """Validate the parameters. An empty value counts as absent, since forms send it. Raises Invalid."""
        _refuse_unusable(given)
        fixed = {k: given[k] for k in given if not k.startswith(cls.free_prefixes() or ("\0",))}
        _refuse_unknown(fixed, [field.alias or name for name, field in cls.model_fields.items()])
        try:
            return cls.model_validate({key: value for key, value in fixed.items() if value != ""})
        except ValidationError as error:
            raise Invalid.from_pydantic(error) from None


class Paged(Query):
    """Parameters of lists: the number of rows and the cursor."""

    limit: int = Field(50, ge=1, le=MAX_PAGE, description="rows in one answer")
    cursor: str | None = Field(None, max_length=2000, description="from `next` or `previous` of an earlier answer")


def _refuse_unusable(given: QueryDict) -> None:
    """Repeated names are ambiguous; PostgreSQL cannot store a NUL, nor UTF-8 a lone surrogate."""
    for key, values in given.lists():
        if len(values) > 1:
            raise Invalid.at(key, "is given more than once; give it once")
        if any("\0" in text or "\ufffd" in text for text in (key, *values)):
            raise Invalid.at(key.replace("\0", "�"), "contains a character that cannot be stored")


def _refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    unknown = [key for key in given if key not in names]
    if unknown:
        raise Invalid(FieldError((key,), f"unknown query parameter{_hint(key, names)}") for key in unknown)


def _hint(key: str, names: list[str]) -> str:
    if hint := did_you_mean(key, names) or did_you_mean(key.partition("__")[0], names):
        return hint
    return f"; known: {', '.join(sorted(names))}" if names else "; this call takes none"


def split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _utc(value: datetime) -> datetime:
    """A time without a zone is UTC; years at the edge of the calendar cannot be converted."""
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the supported calendar") from None


def finite(text: str) -> float | None:
    """The finite number that the text spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
Step = Annotated[int, Field(ge=0, le=MAX_ID)]
Moment = Annotated[datetime, AfterValidator(_utc)]
Names = Annotated[
    list[Annotated[str, Field(max_length=200)]],
    BeforeValidator(split),
    Field(max_length=200),
    WithJsonSchema({"type": "string", "description": "separated by commas"}),
]
RowIds = Annotated[
    list[RowId],
    BeforeValidator(split),
    Field(min_length=1, max_length=1000),
    WithJsonSchema({"type": "string", "pattern": r"^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$"}),
]
