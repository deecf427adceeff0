"""A disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.environment import required


@contextmanager
def small_disk(at: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system of its own of this size, in memory. Needs root, or a skip says so loudly."""
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(at)], capture_output=True, text=True
    )
    if done.returncode:
        words = f"cannot mount a small disk: {done.stderr.strip()} (uid {os.getuid()})"
        pytest.fail(words) if required("mount") else pytest.skip(words)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
