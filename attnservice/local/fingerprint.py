"""A digest of what tables and static files were made from. No Django: it decides in a few milliseconds whether the web
server may start at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from attnservice.local.environment import ROOT


def fingerprint() -> str:
    """A digest of our own files and of the locked versions of packages."""
    digest = hashlib.sha256(os.environ.get("DATABASE_URL", "").encode())
    for path in sorted(_inputs()):
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _inputs() -> Iterator[Path]:
    for name in ("requirements.lock", "package-lock.json", "attnservice/static.py", "attnservice/settings.py"):
        yield ROOT / name
    for folder in ("experiments/static", "experiments/migrations", ".vendor"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                yield path
