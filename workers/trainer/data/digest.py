"""What a task read from disk, by name and SHA-256, so that a later attempt can tell whether it reads the same.

A loader calls `read` with each file's bytes, or `read_files` with many files under one name; whoever builds a task
stands in `reading()` and has them all. Elsewhere the calls only cost the hash. A file that a task of one's own reads
is told by the same calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

Inputs = Mapping[str, str]  # name, as the spec has it → SHA-256, hexadecimal
_open: ContextVar[dict[str, str] | None] = ContextVar("inputs", default=None)


@contextmanager
def reading() -> Iterator[dict[str, str]]:
    """Yields the inputs that loaders name until the end of the block."""
    inputs: dict[str, str] = {}
    token = _open.set(inputs)
    try:
        yield inputs
    finally:
        _open.reset(token)


def read(name: str, content: bytes) -> None:
    """The file that the spec names was read, and this stood in it."""
    _note(name, hashlib.sha256(content).hexdigest())


def read_files(name: str, files: Iterable[tuple[str, Path]]) -> None:
    """Many files under one name, each with a name of its own; their order does not matter. Reads every one of them
    once more, a GB in one or two seconds. Raises OSError."""
    if _open.get() is None:
        return
    lines = sorted(f"{_sha256(file)}  {own}\n" for own, file in files)
    _note(name, hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest())


def digest_of(inputs: Inputs) -> str:
    """One digest of all inputs; empty where nothing was read from disk."""
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(inputs.items())]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest() if lines else ""


def differences(then: Inputs, now: Inputs, began: str) -> list[str]:
    """A sentence for each input that is not what it was. `began` names what read the former ones: "this run"."""
    told = []
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            told.append(f"{name} was read when {began} began and is not read now")
        elif name not in then:
            told.append(f"{name} was not there when {began} began")
        elif then[name] != now[name]:
            told.append(
                f"{name} is not the file that {began} began with "
                f"(SHA-256 is {now[name][:12]}… and was {then[name][:12]}…)"
            )
    return told


def _note(name: str, sha256: str) -> None:
    inputs = _open.get()
    if inputs is not None:
        inputs[name] = sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
