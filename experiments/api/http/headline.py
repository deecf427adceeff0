"""Headline values of a series, as runs and series answer them."""

from __future__ import annotations

from pydantic import BaseModel


class Head(BaseModel):
    """Headline values of one series, which are finite or null."""

    last: float | None
    min: float | None
    max: float | None
    last_step: int | None
    min_step: int | None
    max_step: int | None
    count: int
    nonfinite: int
