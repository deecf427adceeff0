"""The folder below which specs may name files."""

from __future__ import annotations

import os
from pathlib import Path

from workers.trainer.data.errors import DataError

ROOT = "ATTN_DATA_ROOT"  # environment: the folder that specs may name files in


def data_root(path: str) -> Path:
    """The folder that specs may name files in. Raises DataError that names `path` where the worker has none."""
    told = os.environ.get(ROOT)
    if not told:
        raise DataError(f"{path}: this worker has no data root ({ROOT} is not set)", "spec")
    return Path(told)


def below_root(root: Path, path: str) -> Path:
    """The file or folder that `path` names, links followed. Raises DataError where it lies outside the root."""
    try:
        found = (root / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        raise DataError(f"{path!r}: not a path", "spec") from None
    if not found.is_relative_to(root.resolve()) or Path(path).parts[:1] == ("..",):
        raise DataError(f"{path}: outside the data root", "spec")
    return found
