"""Files of an attempt: its scratch folder, and transfers to and from the artifact storage."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage

from experiments.lifecycle import Held

log = logging.getLogger(__name__)
_BLOCK = 2**20


class Damaged(Exception):
    """A stored checkpoint is missing, or differs from what was written."""


def open_scratch(held: Held) -> Path:
    """An empty folder for the attempt. Folders of earlier attempts on this machine are deleted."""
    root = Path(settings.ATTN_SCRATCH)
    for earlier in root.glob(f"{held.run_id}-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    scratch = root / f"{held.run_id}-{held.fence}"
    scratch.mkdir(parents=True)
    return scratch


def inside(scratch: Path, path: str) -> Path:
    """The resolved path of a trainer's file. Raises ValueError unless it lies in the scratch folder."""
    local = Path(path).resolve()
    if not local.is_relative_to(scratch.resolve()):
        raise ValueError(f"the trainer named a file outside of its scratch folder: {path}")
    return local


def stored_name(held: Held, *parts: str) -> str:
    """The name of an attempt's file in the storage."""
    return "/".join(["runs", str(held.run_id), str(held.fence), *parts])[-255:]


def keep(local: Path, name: str) -> str:
    """Move a file to the storage and return its name there; durable before this returns."""
    with local.open("rb") as source:
        kept: str = default_storage.save(name, File(source))
    local.unlink(missing_ok=True)
    return kept


def fetch(name: str, sha256: str, to: Path) -> Path:
    """Copy a stored checkpoint to a local folder. Raises Damaged where it is missing or its SHA-256 differs."""
    digest = hashlib.sha256()
    local = to / f"resume-{Path(name).name}"
    try:
        source = default_storage.open(name, "rb")
    except FileNotFoundError:
        raise Damaged(f"checkpoint {name} is missing from the storage") from None
    with source, local.open("wb") as target:
        while block := source.read(_BLOCK):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != sha256:
        raise Damaged(f"checkpoint {name} is damaged: its SHA-256 is {digest.hexdigest()}, {sha256} was published")
    return local


def discard(names: Iterable[str]) -> None:
    """Delete surplus files; one that cannot be deleted is logged and stays."""
    for name in names:
        try:
            default_storage.delete(name)
        except Exception as error:  # whatever the storage's client raises
            log.warning("surplus file %s cannot be deleted: %s", name, error)
