"""What an explorer and its warm child say to each other: one JSON object a line, either way. No Django, no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class InspectionMessage(BaseModel):
    """Base of everything that is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def bytes(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class QuestionMessage(InspectionMessage):
    """Explorer → child, on its standard input: answer this."""

    question: int
    spec: dict[str, Any]  # of the run
    checkpoint: str  # a readable local path
    sha256: str  # names the checkpoint's content: what is loaded already is not read again
    ask: dict[str, Any]  # experiments.spec.QuestionSpec
    most_bytes: int  # that the answer may have as JSON


class Warm(InspectionMessage):
    """Child → explorer, once: everything is imported."""

    warm: Literal[True] = True


class AnswerMessage(InspectionMessage):
    """Child → explorer: the answer as JSON text, or in words why there is none."""

    question: int
    answer: str = ""
    problem: str = ""
