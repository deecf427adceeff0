"""Checkpoints fetched from the storage for questions; the last few stay on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings

from experiments.models import Checkpoint
from workers import files

KEPT = 8


def local_copy(checkpoint: Checkpoint) -> Path:
    """A verified local copy, named by its SHA-256. Raises files.Damaged and FileNotFoundError."""
    folder = _folder()
    path = folder / f"{checkpoint.sha256}.safetensors"
    if path.exists():
        path.touch()
        return path
    files.fetch(checkpoint.path, checkpoint.sha256, folder).replace(path)
    for old in sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def clear_cache() -> None:
    """Delete the files of an earlier inspection worker."""
    shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    folder = Path(settings.ATTN_SCRATCH) / "explore"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
