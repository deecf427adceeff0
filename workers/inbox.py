"""What a trainer said and nobody has read yet: a queue bounded by bytes, with an end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO

from workers.protocol import ProtocolError, read_message

_HEADER = 256  # rough cost of a message without payload


class End:
    """The trainer has closed its pipe; `error` says how if it was in the middle of a message."""

    def __init__(self, error: str = "") -> None:
        self.error = error


Item = tuple[Any, bytes]


class Inbox:
    """A reader thread fills it, the supervisor empties it.

    While the supervisor is held up (the database is away, a checkpoint is being uploaded) messages pile up
    here and training goes on. At `limit` bytes the reader stops reading: the pipe fills and the trainer waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._items: deque[tuple[Item | End, int]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Item | End, size: int = _HEADER) -> bool:
        """Add an item, waiting for room. False when nobody will read any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._held + size <= self._limit)
            if self._closed:
                return False
            self._items.append((item, size))
            self._held += size
            self._changed.notify_all()
            return True

    def get(self, timeout: float) -> Item | End | None:
        """The next item, or None when nothing came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), timeout):
                return None
            item, size = self._items.popleft()
            self._held -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Let go of a reader that waits for room."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def fill(inbox: Inbox, pipe: BinaryIO, arrived: Callable[[], None]) -> None:
    """Read messages until the pipe ends; the body of a reader thread. `arrived` is called after each."""
    with pipe:
        try:
            while message := read_message(pipe):
                if not inbox.put(message, _HEADER + len(message[1])):
                    return
                arrived()
        except (ProtocolError, ValueError, OSError) as error:
            inbox.put(End(f"{error}"))
        else:
            inbox.put(End())
