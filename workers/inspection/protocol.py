"""Messages between an inspection worker and its child, one JSON object a line. No Django, no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class InspectionMessage(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def bytes(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class QuestionMessage(InspectionMessage):
    """Inspection worker → child, on its standard input."""

    question: int
    spec: dict[str, Any]  # of the run
    checkpoint: str  # a readable local path
    sha256: str  # of the checkpoint: a loaded one is not read again
    ask: dict[str, Any]  # experiments.spec.QuestionSpec
    most_bytes: int  # of the answer as JSON


class Warm(InspectionMessage):
    """Child → inspection worker, once: everything is imported."""

    warm: Literal[True] = True


class AnswerMessage(InspectionMessage):
    """Child → inspection worker: the answer as JSON, or why there is none."""

    question: int
    answer: str = ""
    problem: str = ""
