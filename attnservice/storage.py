"""Files on a local or shared disk, written atomically: to a temporary file, fsynced, renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage


class DurableFiles(FileSystemStorage):
    """A file gets its name only once it is on disk completely; a full disk leaves no partial file."""

    def _save(self, name: str, content: Any) -> str:
        temporary = f"{name}.{uuid.uuid4().hex[:8]}.part"
        try:
            written = Path(self.path(super()._save(temporary, content)))  # type: ignore[misc]  # the stubs leave it out
            sync(written)
            kept = Path(self.path(name))
            written.replace(kept)
            sync(kept.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(self.path(temporary)).unlink()
            raise
        return name


def sync(path: Path) -> None:
    """Make a file, or a rename within a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
