"""How much waits to be stored: one number per slot in memory shared with the main process, whose heartbeat sends the
total."""

from __future__ import annotations

import mmap
import struct

import billiard

_NUMBER = struct.Struct("<Q")
_reported = mmap.mmap(-1, mmap.PAGESIZE)  # created at import, before the slots are forked
_SLOTS = mmap.PAGESIZE // _NUMBER.size


def report(waiting: int) -> None:
    """Record how many bytes of this slot wait."""
    index: int = getattr(billiard.current_process(), "index", 0)
    _NUMBER.pack_into(_reported, (index % _SLOTS) * _NUMBER.size, waiting)


def total() -> int:
    """Bytes that wait in all slots."""
    return sum(number for (number,) in _NUMBER.iter_unpack(_reported[:]))
