"""Sends a trainer's messages through a pipe to its supervisor; folder.py writes them to a folder."""

from __future__ import annotations

import queue
import threading
from typing import BinaryIO, Protocol

from workers.protocol import Message, write_message

QUEUED = 256  # messages that may wait to be written before the trainer waits


class Send(Protocol):
    """Takes one message and its payload."""

    def __call__(self, message: Message, payload: bytes = b"") -> None: ...


class PipeSink:
    """Writes in a thread: a slow supervisor delays the trainer only when the queue is full."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.Queue[tuple[Message, bytes] | None] = queue.Queue(QUEUED)
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)
        self._thread.start()

    def __call__(self, message: Message, payload: bytes = b"") -> None:
        if self._error is not None:
            raise self._error
        self._queue.put((message, payload))

    def close(self) -> None:
        """Returns when everything has been written."""
        self._queue.put(None)
        self._thread.join()
        self._stream.close()

    def _send(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self._error is None:
                    write_message(self._stream, *item)
            except OSError as error:  # the supervisor is gone: the next call raises
                self._error = error
