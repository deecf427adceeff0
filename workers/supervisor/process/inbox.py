"""Unread messages of a trainer: in memory, then on disk, both bounded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from workers.protocol import Flush, Message, ProtocolError, read_message
from workers.supervisor.process.spool import Spool

_HEADER = 256  # rough cost of a message without payload


class End:
    """The trainer has closed its pipe; `error` is empty unless that was within a message."""

    def __init__(self, error: str = "") -> None:
        self.error = error


Item = tuple[Any, bytes]


class Inbox:
    """A reader thread fills it, the supervisor empties it.

    While the supervisor waits for the database or an upload, messages are kept here and training goes on: up to `limit`
    bytes in memory, the rest in the spool. When both are full the reader stops, the pipe fills, and the trainer waits.
    """

    def __init__(self, limit: int, spool: Spool | None = None) -> None:
        self._limit = limit
        self._spool = Spool(Path(), 0) if spool is None else spool
        self._held = 0
        self._items: deque[tuple[Item, int]] = deque()
        self._end: End | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.waits = False  # whether the reader, and so the trainer, waits for room
        self.stepped = time.monotonic()  # when a flush last arrived

    @property
    def backlog(self) -> int:
        """Bytes that wait to be stored."""
        return self._held + self._spool.size

    @property
    def spooled(self) -> int:
        """Bytes of these on disk."""
        return self._spool.size

    def put(self, message: Message, payload: bytes, size: int = _HEADER) -> bool:
        """Add a message, waiting for room. False when the inbox is closed."""
        with self._changed:
            while not self._closed and not self._keep(message, payload, size):
                self.waits = True
                self._changed.wait(1.0)  # a full disk may have room again
            self.waits = False
            if isinstance(message, Flush):
                self.stepped = time.monotonic()
            self._changed.notify_all()
            return not self._closed

    def _keep(self, message: Message, payload: bytes, size: int) -> bool:
        if not self._spool.size and (not self._items or self._held + size <= self._limit):
            self._items.append(((message, payload), size))
            self._held += size
            return True
        return self._spool.put(message, payload)

    def end(self, end: End) -> None:
        """Nothing more will come."""
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def get(self, timeout: float) -> Item | End | None:
        """The next item, or None when nothing came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._spool.size or self._end, timeout):
                return None
            if not self._items and not self._spool.size:
                return self._end
            item = self._take()
            self._changed.notify_all()
            return item

    def _take(self) -> Item:
        if not self._items:
            return self._spool.get()
        item, size = self._items.popleft()
        self._held -= size
        return item

    def close(self) -> None:
        """Release a waiting reader, and the file."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._held = 0
            self._spool.close()
            self._changed.notify_all()


def fill(inbox: Inbox, pipe: BinaryIO, arrived: Callable[[], None]) -> None:
    """Read messages until the pipe ends; the body of a reader thread. `arrived` is called after each."""
    with pipe:
        try:
            while message := read_message(pipe):
                if not inbox.put(*message, _HEADER + len(message[1])):
                    return
                arrived()
        except (ProtocolError, ValueError, OSError) as error:
            inbox.end(End(f"{error}"))
        else:
            inbox.end(End())
