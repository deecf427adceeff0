"""What one can ask a trained model: what it is to look at, and what to change inside before it looks again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Section

EXPLORE = "explore"  # the queue of questions; no run may name it as its pool
Place = Annotated[int, Field(ge=0, lt=2**20)]
Site = Annotated[str, Field(min_length=1, max_length=100)]


class Edit(Section):
    """One change inside attention: vectors change places, vanish, or come from another input."""

    kind: Literal["swap", "ablate", "patch"] = Field(
        description="swap: two places exchange their vectors; ablate: they become zero; patch: they come from `other`"
    )
    what: Literal["q", "k", "v", "head"] = Field(description="queries, keys, values, or what a head hands on")
    site: Site | None = Field(None, description="where; every site that has the places if absent")
    head: int | None = Field(None, ge=0, lt=64, description="which head; all if absent")
    places: tuple[Place, ...] = Field((), max_length=64, description="whose vectors; all if empty, two for a swap")
    sources: tuple[Place, ...] = Field((), max_length=64, description="patch: places in `other`; the same if empty")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Edit:
        if self.kind == "swap" and len(set(self.places)) != 2:
            raise PydanticCustomError("two_places", "a swap names two different places")
        if self.sources and (self.kind != "patch" or len(self.sources) != len(self.places)):
            raise PydanticCustomError("sources", "sources belong to a patch, one for each of its places")
        return self


class QuestionSpec(Section):
    """A question to a checkpoint. What to look at: `text`, or a validation `sample`, with a `prompt` of one's own."""

    text: str | None = Field(None, max_length=400, description="a sentence, for models of tokens")
    sample: int | None = Field(None, ge=0, lt=10**6, description="index of a validation sample")
    prompt: str | None = Field(None, max_length=200, description="what to find in the sample; its own if absent")
    checkpoint: int | None = Field(None, ge=1, description="completed steps of the checkpoint; the newest if absent")
    site: Site | None = Field(None, description="the site whose map to send where all of them are too much")
    asker: Place | None = Field(None, description="an asking place at `site`: where it looks")
    answerer: Place | None = Field(None, description="an answering place at `site`: who looks at it")
    edits: tuple[Edit, ...] = Field((), max_length=8, description="changes, made at once; the answer shows both")
    other: str | None = Field(None, max_length=400, description="the sentence or prompt that patches take from")

    @model_validator(mode="after")
    def _has_what_its_edits_need(self) -> QuestionSpec:
        if self.other is None and any(edit.kind == "patch" for edit in self.edits):
            raise PydanticCustomError("no_other", "a patch takes vectors from `other`, which is not given")
        return self
