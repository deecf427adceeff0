"""Messages that do not fit in memory, in order, in a file without a name: a killed worker leaves no file."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from workers.protocol import Message, read_message, write_message


class Spool:
    """A FIFO of at most `limit` bytes. Not thread-safe: the inbox holds its lock."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._file: int | None = None
        self._read = self._written = 0

    @property
    def size(self) -> int:
        """Bytes that wait here."""
        return self._written - self._read

    def put(self, message: Message, payload: bytes) -> bool:
        """Add a message. False where the limit or the disk has no room for it."""
        packed = io.BytesIO()
        write_message(packed, message, payload)
        if self._written + packed.tell() > self._limit:
            return False
        try:
            self._write(packed.getbuffer())
        except OSError:  # a full disk; partial data past `_written` is overwritten later
            return False
        self._written += packed.tell()
        return True

    def _write(self, data: memoryview) -> None:
        file, offset = self._open(), self._written
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written

    def get(self) -> tuple[Any, bytes]:
        """The oldest message. The space is freed when none is left."""
        assert self._file is not None, "nothing was put"
        with open(self._file, "rb", closefd=False) as file:
            file.seek(self._read)
            item = read_message(file)
            self._read = file.tell()
        assert item is not None, "the spool is not empty"
        if not self.size:
            self._read = self._written = 0
            os.ftruncate(self._file, 0)
        return item

    def close(self) -> None:
        """Drop all messages and close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._read = self._written = 0

    def _open(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                self._file = os.dup(file.fileno())
            os.set_inheritable(self._file, False)
        return self._file
