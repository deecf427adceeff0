"""Finds the images of a folder in COCO's format and checks them against their entries before a run trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.protocol import Notice
from workers.trainer.data.coco.entries import ImageEntry
from workers.trainer.data.coco.layout import Places
from workers.trainer.data.coco.scales import Scales
from workers.trainer.data.errors import DataError, Problems
from workers.trainer.data.images import reader
from workers.trainer.data.notices import counted, notice

DECODED = 2**28  # pixels that are decoded before training, in some seconds; images past them are decoded when needed
FLAT = 16  # an image whose values in each colour lie closer together is nearly uniform
FLAT_SPECKS = 0.001  # share of pixels at either end that this ignores


class Pictures:
    """Problems go to `problems`; scales and `notices` are known after `check`."""

    def __init__(self, root: Path, folder: str, listing: str, problems: Problems) -> None:
        self.folder, self.listing, self.problems = folder, listing.rsplit("/", 1)[-1], problems
        self.scales = Scales(folder, problems, self._path)
        self.files: dict[int, Path] = {}
        self._places = Places(root, folder)
        self._heads: dict[int, reader.Head] = {}
        self._flat: list[int] = []
        self._names: dict[int, str] = {}

    def check(self, entries: Mapping[int, ImageEntry]) -> None:
        self._names = {number: entry.file_name for number, entry in entries.items()}
        for entry in entries.values():
            self._find(entry)
        self._check_distinct()
        self.scales.decide(self.files, self._heads)
        if not self.problems.count:
            self._decode(entries)

    def notices(self) -> list[Notice]:
        heads = self._heads.items()
        turned = [number for number, head in heads if head.orientation > 1]
        frames = [number for number, head in heads if head.frames]
        clear = [number for number, head in heads if head.transparent]
        as_shown = "turned as the EXIF orientation says; annotations are assumed to match the image as viewers show it"
        uniform = (
            "nearly uniform: in each colour, the darkest and the brightest value differ by less than "
            f"{FLAT} of 255, ignoring {FLAT_SPECKS:.1%} of the pixels at either end"
        )
        return [
            *self.scales.notices(self._names),
            *self._notice("read_as", turned, as_shown),
            *self._notice("read_as", frames, "with more than one frame or page: only the first is read"),
            *self._notice("read_as", clear, "with transparency: placed on white"),
            *self._notice("flat", self._flat, uniform),
        ]

    def _notice(self, kind: str, numbers: list[int], text: str) -> list[Notice]:
        names = [self._names[number] for number in numbers]
        return notice(kind, f"{counted(len(names), 'image')} {text}", names)

    def _path(self, number: int) -> str:
        return f"{self.folder}/images/{self._names[number]}"

    def _find(self, entry: ImageEntry) -> None:
        """Find the file of an entry, and compare its head with the entry."""
        try:
            file = self._places.find(entry.file_name)
        except DataError as error:
            self.problems.add(str(error), error.reason)
            return
        try:
            head = reader.head(file)
        except reader.ImageProblem as error:
            self.problems.add(f"{self._path(entry.id)}: {error}")
            return
        self.files[entry.id], self._heads[entry.id] = file, head
        if head.shown != (entry.width, entry.height):
            self.problems.add(f"{self._path(entry.id)}: {_other_size(head, entry, self.listing)}")

    def _check_distinct(self) -> None:
        """An image with two ids could be trained on and held out at once."""
        first: dict[Path, int] = {}
        for number, file in self.files.items():
            if (other := first.setdefault(file, number)) != number:
                self.problems.add(f"{self._path(number)}: images {other} and {number} are the same file; list it once")

    def _decode(self, entries: Mapping[int, ImageEntry]) -> None:
        left = DECODED
        for number, entry in entries.items():
            if (left := left - entry.width * entry.height) < 0:
                return
            try:
                pixels = reader.rgb(self.files[number], self.scales.float_top)
            except reader.ImageProblem as error:
                self.problems.add(f"{self._path(number)}: {error}")
                continue
            if _spread(pixels) < FLAT:
                self._flat.append(number)


def _spread(pixels: NDArray[np.uint8]) -> int:
    """The largest difference of values within a colour, without FLAT_SPECKS of the pixels at either end."""
    counts = np.array(Image.fromarray(pixels).histogram()).reshape(3, 256).cumsum(1)
    total = counts[0, -1]
    specks = max(1, int(FLAT_SPECKS * total))
    lowest, highest = (counts > specks).argmax(1), (counts >= total - specks).argmax(1)
    return int((highest - lowest).max())


def _other_size(head: reader.Head, entry: ImageEntry, listing: str) -> str:
    (width, height), listed = head.shown, (entry.width, entry.height)
    expected = f"but {listing} says {entry.width} × {entry.height}"
    if head.shown == head.stored:
        return f"it has {width} × {height} pixels, {expected}; correct one of them"
    as_stored = ", as it is stored; annotate it as it is shown, or remove the tag" if listed == head.stored else ""
    return f"its EXIF orientation {head.orientation} shows it with {width} × {height} pixels, {expected}{as_stored}"
