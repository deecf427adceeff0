"""How much waits to be stored, told by every slot to the main process, whose heartbeat passes it on.

Memory that both share, one number a slot, as in `workers.supervisor.machine.drain`.
"""

from __future__ import annotations

import mmap
import struct

import billiard

_NUMBER = struct.Struct("<Q")
_reported = mmap.mmap(-1, mmap.PAGESIZE)  # made at import, before the slots are forked
_SLOTS = mmap.PAGESIZE // _NUMBER.size


def report(waiting: int) -> None:
    """This slot holds so many bytes back."""
    index: int = getattr(billiard.current_process(), "index", 0)
    _NUMBER.pack_into(_reported, (index % _SLOTS) * _NUMBER.size, waiting)


def total() -> int:
    """Bytes that all slots hold back."""
    return sum(number for (number,) in _NUMBER.iter_unpack(_reported[:]))
