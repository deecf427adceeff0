"""What a worker holds: the right to write to a run, and what it needs in order to execute it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.models import Checkpoint


@dataclass(frozen=True)
class Held:
    """The right to write to a run, until a later claim raises its fence."""

    run_id: int
    fence: int


@dataclass(frozen=True)
class Claim:
    """What a worker needs in order to execute: `start_step` completed steps are in `checkpoint`.

    `parent` is the spec of the run that this one was forked from. `surplus` names stored files that nothing refers to
    any more, since the claim truncated the run to its checkpoint.
    """

    held: Held
    spec: dict[str, Any]
    start_step: int
    checkpoint: Checkpoint | None
    time_offset: float
    surplus: tuple[str, ...] = ()
    parent: dict[str, Any] | None = None
    spent: float = 0.0  # seconds of attempts since a user queued the run

    @property
    def forked(self) -> bool:
        """Whether the checkpoint is the parent's, not written by this run."""
        return self.checkpoint is not None and self.checkpoint.fence == 0
