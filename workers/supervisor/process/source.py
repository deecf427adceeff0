"""The code a trainer is started from: commit, whether files differ from it, and the hash of the lock file. Stored with
the attempt for display."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LOCK = "requirements.lock"
COMMIT = "ATTN_COMMIT"  # environment variable for code without its git history, as in a container
LIMIT_S = 5.0


def facts(root: Path = ROOT) -> dict[str, Any]:
    """`commit` and `lock` are empty and `dirty` is None where unknown. Two git calls: some milliseconds."""
    commit, dirty = _commit(root)
    return {"commit": commit, "dirty": dirty, "lock": _sha256(root / LOCK)}


def _commit(root: Path) -> tuple[str, bool | None]:
    lines = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
    if len(lines) != 2 or Path(lines[0]).resolve() != root.resolve():  # no repository, or another one around it
        return os.environ.get(COMMIT, ""), None
    return lines[1], bool(_git(root, "status", "--porcelain", "--untracked-files=no"))


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
