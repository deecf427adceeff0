"""What a question looks at, as every task that can be asked provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

from experiments.spec import QuestionSpec


class Given(Protocol):
    """One input of a model, read from a question; and how to tell what the model makes of it."""

    about: dict[str, Any]  # what was read, for display

    def run(self, model: nn.Module) -> Any:
        """One forward pass, batch of one."""

    def output(self, raw: Any) -> dict[str, Any]:
        """What `run` returned, in words and numbers."""

    def axes(self, site: str) -> tuple[str, str]:
        """What asks and what answers at a site: token, text, patch or query."""


Read = Callable[[Any, QuestionSpec], Given]  # a task and a question; raises ValueError in words
