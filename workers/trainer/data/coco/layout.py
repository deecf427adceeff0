"""Where tools put the annotations file of a folder, and the files that its entries name; all below the data root."""

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
NAMES = ("annotations.json", "_annotations.coco.json")  # the first that exists
PATTERNS = ("instances_*.json", "annotations/instances_*.json", "*.json", "annotations/*.json")  # the only match


def listing_of(root: Path, name: str) -> tuple[str, str]:
    """The folder and the annotations file that `name` means, both as paths below the root: a folder, or the file
    itself. Raises DataError if there is none, or more than one."""
    given = below_root(root, name)
    if given.is_file() and given.suffix == ".json":
        parent = PurePosixPath(name).parent
        return str(parent.parent if parent.name == "annotations" else parent), name
    if not given.is_dir():
        raise DataError(f"{name}: there is no such folder below the data root", "spec")
    for pattern in (*NAMES, *PATTERNS):
        matches = _matches(given, pattern)
        if len(matches) == 1:
            return name, f"{name}/{matches[0]}"
        if matches:
            raise DataError(f"{name}: it has {_first_of(matches)}; name one of them in data.path", "spec")
    deeper = _matches(given, "*/*.json")
    hint = f"; it has {_first_of(deeper)}: name one of them in data.path" if deeper else ""
    raise DataError(f"{name}/{NAMES[0]}: there is no such file below the data root{hint}", "spec")


def _matches(folder: Path, pattern: str) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.glob(pattern) if file.is_file())


class Places:
    """Finds the file of an entry: its path below `images/`, then below the folder itself, then without its leading
    folders; a bare name also in any subfolder, if only one file has it."""

    def __init__(self, root: Path, folder: str) -> None:
        self.root, self.folder = root, folder
        self._base = below_root(root, folder)

    def find(self, file_name: str) -> Path:
        """Raises DataError if it is missing, ambiguous, absolute or outside the root."""
        path = f"{self.folder}/{IMAGES}/{file_name}"
        for spelled in _spellings(file_name):
            if "://" in spelled or PurePosixPath(spelled).root or PureWindowsPath(spelled).drive:
                raise DataError(f"{file_name}: outside the data root; file_name must be a path below {IMAGES}/", "spec")
            below_root(self.root, f"{self.folder}/{IMAGES}/{spelled}")
        for relative in _candidates(file_name):
            file = below_root(self.root, f"{self.folder}/{relative}")
            if file.is_file():
                return file
        return self._in_subfolders(file_name, path)

    def _in_subfolders(self, file_name: str, path: str) -> Path:
        bare = "/" not in file_name and "\\" not in file_name
        paths = sorted(os.path.relpath(file, self._base) for file in self._by_name.get(_plain(file_name), []) if bare)
        if len(paths) > 1:
            raise DataError(f"{path}: several files have this name ({_first_of(paths)}); give its folder in file_name")
        if not paths:
            raise DataError(f"{path}: there is no such file; add it, or remove its entry from the annotations")
        return below_root(self.root, f"{self.folder}/{paths[0]}")

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        for folder, _, files in os.walk(self._base):
            for file in files:
                by_name.setdefault(_plain(file), []).append(Path(folder, file))
        return by_name


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
    """As written; with slashes for backslashes; with %20 and the like decoded; accents composed and decomposed."""
    slashed = file_name.replace("\\", "/")
    written = [file_name, slashed, unquote(slashed)]
    forms = [unicodedata.normalize(form, each) for form in ("NFC", "NFD") for each in written]
    return list(dict.fromkeys([*written, *forms]))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name))


def _first_of(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
