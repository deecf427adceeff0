"""Two flags that the worker's main process raises and its slots read: stop, save, take nothing new.

SIGTERM never reaches a slot, so the flags lie in memory that both share. A lock-free byte each: a slot that
is killed while looking cannot leave anything locked.
"""

from __future__ import annotations

import mmap

_flags = mmap.mmap(-1, mmap.PAGESIZE)  # anonymous and shared: made at import, before the slots are forked
_SHUTTING_DOWN, _DRAINED = 0, 1


def begin_shutdown() -> None:
    """The worker was told to go."""
    _flags[_SHUTTING_DOWN] = 1


def set_drained(drained: bool) -> None:
    """An operator drains the worker, or takes it back."""
    _flags[_DRAINED] = int(drained)


def requested() -> bool:
    """Whether runs are to be saved and handed back, and none taken."""
    return bool(_flags[_SHUTTING_DOWN] or _flags[_DRAINED])


def shutting_down() -> bool:
    """Whether the worker is about to end."""
    return bool(_flags[_SHUTTING_DOWN])
