"""One spare trainer per slot, with torch imported: a claimed run starts in milliseconds.

It uses no GPU before its orders, and about 250 MB of memory. With ATTN_SPARE=0 there is none, and runs wait some
seconds for their trainer."""

from __future__ import annotations

import logging

from workers.supervisor import limits
from workers.supervisor.machine import machine
from workers.supervisor.process.trainer_process import Trainer

log = logging.getLogger(__name__)
_spare: Trainer | None = None


def prepare() -> None:
    """Start a spare unless one waits. Call it from the main thread."""
    global _spare
    if limits.SPARE and not _waits():
        discard()
        _spare = _start()


def take() -> Trainer:
    """The spare, or a new trainer. Call it from the main thread."""
    global _spare
    if not _waits():
        discard()
    trainer, _spare = _spare or _start(), None
    return trainer


def _waits() -> bool:
    return _spare is not None and _spare.alive


def _start() -> Trainer:
    return Trainer(gpu=machine.gpu_of_this_slot())


def discard() -> None:
    """End the spare."""
    global _spare
    if _spare is not None:
        _spare.end(grace=0)
        _spare = None
