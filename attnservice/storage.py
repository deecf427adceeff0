"""Files on a local or shared disk, each of them whole: beside, fsynced, renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage


class DurableFiles(FileSystemStorage):
    """A file has its name only when all of it is on the disk; a full disk leaves no part of one behind."""

    def _save(self, name: str, content: Any) -> str:
        beside = f"{name}.{uuid.uuid4().hex[:8]}.part"
        try:
            written = Path(self.path(super()._save(beside, content)))  # type: ignore[misc]  # the stubs leave it out
            sync(written)
            kept = Path(self.path(name))
            written.replace(kept)
            sync(kept.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(self.path(beside)).unlink()
            raise
        return name


def sync(path: Path) -> None:
    """Make a file, or a rename within a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
