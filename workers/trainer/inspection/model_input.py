"""The input of a model, read from a question, as every task that can answer questions provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

from experiments.spec import QuestionSpec


class ModelInput(Protocol):
    """One input of a model, and how to describe what the model makes of it."""

    about: dict[str, Any]  # the input, for display

    def run(self, model: nn.Module) -> Any:
        """One forward pass, batch of one."""

    def output(self, raw: Any) -> dict[str, Any]:
        """What `run` returned, as JSON."""

    def axes(self, site: str) -> tuple[str, str]:
        """What the query and key positions of a site are: token, text, patch or query."""


Reader = Callable[[Any, QuestionSpec], ModelInput]  # of a task and a question; raises ValueError for a user's mistake
