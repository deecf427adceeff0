"""What an explorer and its warm child say to each other: one JSON object a line, either way. No Django, no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Line(BaseModel):
    """Base of everything that is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def bytes(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class Put(Line):
    """Explorer → child, on its standard input: answer this."""

    question: int
    spec: dict[str, Any]  # of the run
    checkpoint: str  # a readable local path
    sha256: str  # names the checkpoint's content: what is loaded already is not read again
    ask: dict[str, Any]  # experiments.spec.QuestionSpec
    most_bytes: int  # that the answer may have as JSON


class Warm(Line):
    """Child → explorer, once: everything is imported."""

    warm: Literal[True] = True


class Reply(Line):
    """Child → explorer: the answer as JSON text, or in words why there is none."""

    question: int
    answer: str = ""
    problem: str = ""
