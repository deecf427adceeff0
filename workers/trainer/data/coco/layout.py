"""Where tools put things: the annotations file of a folder, and the files that its entries name.

All of it stays below the data root.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from workers.trainer.data.errors import DataError
from workers.trainer.data.roots import below_root

IMAGES = "images"
NAMES = ("annotations.json", "_annotations.coco.json")  # the first that is there
PATTERNS = ("instances_*.json", "annotations/instances_*.json", "*.json", "annotations/*.json")  # the only match


def listing_of(root: Path, name: str) -> tuple[str, str]:
    """The folder and the annotations file that `name` means, both as paths below the root: a folder, or the file
    itself. Raises DataError where there is none, or more than one to choose from."""
    given = below_root(root, name)
    if given.is_file() and given.suffix == ".json":
        parent = PurePosixPath(name).parent
        return str(parent.parent if parent.name == "annotations" else parent), name
    if not given.is_dir():
        raise DataError(f"{name}: there is no such folder below the data root", "spec")
    for file in NAMES:
        if (given / file).is_file():
            return name, f"{name}/{file}"
    for pattern in PATTERNS:
        found = sorted(file.relative_to(given).as_posix() for file in given.glob(pattern))
        if len(found) == 1:
            return name, f"{name}/{found[0]}"
        if found:
            raise DataError(f"{name}: it has {_some(found)}; name one of them in data.path", "spec")
    deeper = sorted(file.relative_to(given).as_posix() for file in given.glob("*/*.json"))
    hint = f"; it has {_some(deeper)}: name one of them in data.path" if deeper else ""
    raise DataError(f"{name}/{NAMES[0]}: there is no such file below the data root{hint}", "spec")


class Places:
    """Finds the file of an entry below a folder: as it is written below `images/`, then below the folder itself, then
    with leading folders left off; a bare name also in any subfolder, where it is the only one of that name."""

    def __init__(self, root: Path, folder: str) -> None:
        self.root, self.folder = root, folder
        self._base = below_root(root, folder)

    def find(self, file_name: str) -> Path:
        """Raises DataError where it is missing, ambiguous, absolute or outside the root."""
        told = f"{self.folder}/{IMAGES}/{file_name}"
        for spelled in _spellings(file_name):
            if "://" in spelled or PurePosixPath(spelled).root or PureWindowsPath(spelled).drive:
                raise DataError(f"{file_name}: outside the data root: a file's name is taken below {IMAGES}/", "spec")
            below_root(self.root, f"{self.folder}/{IMAGES}/{spelled}")
        for relative in _candidates(file_name):
            file = below_root(self.root, f"{self.folder}/{relative}")
            if file.is_file():
                return file
        return self._deeper(file_name, told)

    def _deeper(self, file_name: str, told: str) -> Path:
        found = [] if "/" in file_name or "\\" in file_name else self._by_name.get(_plain(file_name), [])
        if len(found) > 1:
            where = _some(sorted(os.path.relpath(file, self._base) for file in found))
            raise DataError(f"{told}: there is {where}, and the annotations do not say which")
        if not found:
            raise DataError(f"{told}: there is no such file, though the annotations list it")
        return below_root(self.root, f"{self.folder}/{os.path.relpath(found[0], self._base)}")

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder, _, files in os.walk(self._base):
            for file in files:
                found.setdefault(_plain(file), []).append(Path(folder, file))
        return found


def _candidates(file_name: str) -> Iterator[str]:
    """Paths relative to the folder, the likeliest first."""
    for spelled in _spellings(file_name):
        yield f"{IMAGES}/{spelled}"
        yield spelled
    for spelled in _spellings(file_name):
        parts = PurePosixPath(spelled).parts
        for start in range(1, len(parts) if ".." not in parts[1:] else 1):
            rest = "/".join(parts[start:])
            yield f"{IMAGES}/{rest}"
            yield rest


def _spellings(file_name: str) -> list[str]:
    """As it is written; with slashes for backslashes; with %20 and the like read; accents as one sign or two."""
    slashed = file_name.replace("\\", "/")
    written = [file_name, slashed, unquote(slashed)]
    forms = [unicodedata.normalize(form, each) for form in ("NFC", "NFD") for each in written]
    return list(dict.fromkeys([*written, *forms]))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name))


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
