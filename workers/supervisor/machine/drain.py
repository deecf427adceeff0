"""Two flags that the worker's main process sets and its slots read: stop, save, claim nothing new.

SIGTERM never reaches a slot, so the flags are in shared memory: a byte each, without a lock that a killed slot could
leave locked."""

from __future__ import annotations

import mmap

_flags = mmap.mmap(-1, mmap.PAGESIZE)  # anonymous, shared: created before the slots are forked
_SHUTTING_DOWN, _DRAINED = 0, 1


def begin_shutdown() -> None:
    """The worker was told to shut down."""
    _flags[_SHUTTING_DOWN] = 1


def set_drained(drained: bool) -> None:
    """An operator started or ended a drain."""
    _flags[_DRAINED] = int(drained)


def requested() -> bool:
    """Whether runs must be saved and released, and none claimed."""
    return bool(_flags[_SHUTTING_DOWN] or _flags[_DRAINED])


def shutting_down() -> bool:
    """Whether the worker is shutting down."""
    return bool(_flags[_SHUTTING_DOWN])
