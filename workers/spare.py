"""One trainer per slot that has torch imported and waits for orders: a claimed run starts in milliseconds.

It touches no GPU before its orders. A spare costs the memory of an imported torch (about 250 MB).
"""

from __future__ import annotations

import logging

from workers import machine
from workers.trainers import Trainer

log = logging.getLogger(__name__)
_spare: Trainer | None = None


def prepare() -> None:
    """Start the next trainer unless one waits already. Call it from the main thread."""
    global _spare
    if _spare is None or not _spare.alive:
        discard()
        _spare = Trainer(gpu=machine.gpu_of_this_slot())


def take() -> Trainer:
    """The waiting trainer, or a fresh one."""
    global _spare
    prepare()
    assert _spare is not None
    trainer, _spare = _spare, None
    return trainer


def discard() -> None:
    """End the waiting trainer."""
    global _spare
    if _spare is not None:
        _spare.end(grace=0)
        _spare = None
