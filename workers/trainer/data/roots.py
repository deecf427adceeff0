"""The data root: the folder below which specs may name files."""

from __future__ import annotations

import os
from pathlib import Path

from workers.trainer.data.errors import DataError

ROOT = "ATTN_DATA_ROOT"  # environment variable


def data_root(path: str) -> Path:
    """The data root. Raises DataError that names `path` if the worker has none."""
    root = os.environ.get(ROOT)
    if not root:
        raise DataError(f"{path}: this worker has no data root ({ROOT} is not set; its operator sets it)", "spec")
    return Path(root)


def below_root(root: Path, path: str) -> Path:
    """The file or folder that `path` names, links followed. Raises DataError if it is outside the root."""
    try:
        resolved = (root / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        raise DataError(f"{path!r}: not a valid path", "spec") from None
    if not resolved.is_relative_to(root.resolve()) or Path(path).parts[:1] == ("..",):
        raise DataError(f"{path}: outside the data root; name a path below it", "spec")
    return resolved
