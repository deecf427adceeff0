"""What a task read from disk, by name and SHA-256, so that a later attempt can tell whether it reads the same.

A loader, of ours or of a plugin, calls `read` with each file's bytes, or `read_files` with many files under one name;
code that builds a task inside `reading()` collects them. Elsewhere the calls only cost the hash. The code of packages
that a spec names counts as read, too.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "package "  # prefix of the names of packages
Inputs = Mapping[str, str]  # name, as the spec has it → SHA-256, hexadecimal
_open: ContextVar[dict[str, str] | None] = ContextVar("inputs", default=None)


@dataclass(frozen=True)
class Hashed:
    """A file that is in a digest and is opened again later."""

    file: Path
    stamp: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, file: Path) -> Hashed:
        """Raises OSError. The stamp is taken first, so that a change in between is noticed."""
        stamp = _stamp(file)
        return cls(file, stamp, _sha256(file))

    def unchanged(self) -> bool:
        """Whether its contents are the same. Costs a stat, and the hash if the file was written again."""
        try:
            return _stamp(self.file) == self.stamp or _sha256(self.file) == self.sha256
        except OSError:
            return False


@contextmanager
def reading() -> Iterator[dict[str, str]]:
    """Yields the inputs that loaders read inside."""
    inputs: dict[str, str] = {}
    token = _open.set(inputs)
    try:
        yield inputs
    finally:
        _open.reset(token)


def read(name: str, content: bytes) -> None:
    """Record that the file that the spec calls `name` was read, with this content."""
    _note(name, hashlib.sha256(content).hexdigest())


def read_files(name: str, files: Iterable[tuple[str, Path]]) -> dict[str, Hashed]:
    """Record many files, each with its own name, under one name; their order does not matter. Reads each once more, at
    0.5 to 1 GB/s. Returns them by their own names, for a loader that opens them again during training; empty outside
    `reading()`. Raises OSError."""
    if _open.get() is None:
        return {}
    hashed = {own: Hashed.of(file) for own, file in files}
    lines = sorted(f"{each.sha256}  {own}\n" for own, each in hashed.items())
    _note(name, hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest())
    return hashed


def read_package(module: str) -> None:
    """The source of the package that an imported module belongs to: every .py file of it, installed or edited."""
    name = module.partition(".")[0]
    top = sys.modules[name]
    folders = [Path(folder) for folder in getattr(top, "__path__", [])]
    files = [(str(file.relative_to(folder)), file) for folder in folders for file in folder.rglob("*.py")]
    if not files and top.__file__:
        files = [(Path(top.__file__).name, Path(top.__file__))]
    read_files(PACKAGE + name, files)


def digest_of(inputs: Inputs) -> str:
    """One digest of all inputs; empty if nothing was read."""
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(inputs.items())]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest() if lines else ""


def differences(then: Inputs, now: Inputs, began: str) -> list[str]:
    """A sentence for each input that differs. `began` names what read the former ones, such as "this run"."""
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    return [_difference(name, then.get(name), now.get(name), began) for name in names]


def _difference(name: str, then: str | None, now: str | None, began: str) -> str:
    if name.startswith(PACKAGE):
        return f"the code of {name} is not what {began} began with"
    if now is None:
        return f"{name} was read when {began} began and is not read now"
    if then is None:
        return f"{name} was not there when {began} began"
    return f"{name} is not the file that {began} began with (SHA-256 is {now[:12]}… and was {then[:12]}…)"


def files_of(inputs: Inputs) -> dict[str, str]:
    """Without the code of packages."""
    return {name: sha256 for name, sha256 in inputs.items() if not name.startswith(PACKAGE)}


def _note(name: str, sha256: str) -> None:
    inputs = _open.get()
    if inputs is not None:
        inputs[name] = sha256


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
