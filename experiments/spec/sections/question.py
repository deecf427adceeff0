"""A question to a checkpoint: its input, and changes inside attention for a second forward pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Section

EXPLORE = "explore"  # the queue of inspection workers; no run may name it as its pool
Position = Annotated[int, Field(ge=0, lt=2**20)]
Site = Annotated[str, Field(min_length=1, max_length=100)]


class Edit(Section):
    """One change inside attention: vectors are exchanged, set to zero, or taken from another input."""

    kind: Literal["swap", "ablate", "patch"] = Field(
        description="swap: exchange the vectors of two positions; ablate: set to zero; patch: take from `other`"
    )
    what: Literal["q", "k", "v", "head"] = Field(description="queries, keys, values, or the output of a head")
    site: Site | None = Field(None, description="the site; without it, every site that has the positions")
    head: int | None = Field(None, ge=0, lt=64, description="the head; without it, all heads")
    places: tuple[Position, ...] = Field((), max_length=64, description="positions; empty: all; a swap needs two")
    sources: tuple[Position, ...] = Field((), max_length=64, description="patch: positions in `other`; empty: the same")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Edit:
        if self.kind == "swap" and len(set(self.places)) != 2:
            raise PydanticCustomError("two_places", "must name two different positions for a swap")
        if self.sources and (self.kind != "patch" or len(self.sources) != len(self.places)):
            raise PydanticCustomError("sources", "`sources` needs a patch and one entry for each of `places`")
        return self


class QuestionSpec(Section):
    """A question to a checkpoint about `text`, or about a validation `sample`, optionally with another `prompt`."""

    text: str | None = Field(None, max_length=400, description="a sentence, for models of tokens")
    sample: int | None = Field(None, ge=0, lt=10**6, description="index of a validation sample")
    prompt: str | None = Field(None, max_length=200, description="what to find in the sample; without it, its own")
    checkpoint: int | None = Field(None, ge=1, description="completed steps of the checkpoint; without it, the newest")
    site: Site | None = Field(None, description="the site whose map to send where all maps are too large")
    asker: Position | None = Field(None, description="a query position at `site`: return its attention row")
    answerer: Position | None = Field(None, description="a key position at `site`: return its attention column")
    edits: tuple[Edit, ...] = Field((), max_length=8, description="changes, made together; the answer has both passes")
    other: str | None = Field(None, max_length=400, description="the sentence or prompt that patches take vectors from")

    @model_validator(mode="after")
    def _has_what_its_edits_need(self) -> QuestionSpec:
        if self.other is None and any(edit.kind == "patch" for edit in self.edits):
            raise PydanticCustomError("no_other", "set `other`: a patch takes its vectors from there")
        return self
