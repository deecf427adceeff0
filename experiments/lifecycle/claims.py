"""What is held: the right to write to a run, and all that a worker needs in order to execute it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.models import Checkpoint


@dataclass(frozen=True)
class Held:
    """The right to write to a run, as long as its fence has not moved on."""

    run_id: int
    fence: int


@dataclass(frozen=True)
class Claim:
    """What a worker needs in order to execute: `start_step` completed steps lie in `checkpoint`.

    `parent` is the spec of the run that this one was forked from. `surplus` names stored files that nothing refers
    to any more, since the claim truncated past the checkpoint.
    """

    held: Held
    spec: dict[str, Any]
    steps: int
    start_step: int
    checkpoint: Checkpoint | None
    time_offset: float
    surplus: tuple[str, ...] = ()
    parent: dict[str, Any] | None = None
    spent: float = 0.0  # seconds that attempts took since a user queued the run

    @property
    def forked(self) -> bool:
        """Whether the checkpoint is another run's: no attempt of this run has written it."""
        return self.checkpoint is not None and self.checkpoint.fence == 0
