"""The images of a folder in COCO's format: found, held against their entries, looked at before a run trains on them."""

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
from workers.trainer.data.images import reader as images
from workers.trainer.data.notices import counted, notice

DECODED = 2**28  # pixels that are decoded before training: some seconds. Images past them are when they are drawn
FLAT = 16  # an image whose values lie closer together in each colour shows next to nothing
FLAT_SPECKS = 0.001  # share of pixels at either end that do not count for that


class Pictures:
    """Problems go to `problems`; scales and `notices` are known after `look`."""

    def __init__(self, root: Path, folder: str, listing: str, problems: Problems) -> None:
        self.folder, self.listing, self.problems = folder, listing.rsplit("/", 1)[-1], problems
        self.scales = Scales(folder, problems, self._told)
        self.files: dict[int, Path] = {}
        self._places = Places(root, folder)
        self._heads: dict[int, images.Head] = {}
        self._flat: list[int] = []
        self._names: dict[int, str] = {}

    def look(self, entries: Mapping[int, ImageEntry]) -> None:
        self._names = {number: entry.file_name for number, entry in entries.items()}
        for entry in entries.values():
            self._find(entry)
        self._apart()
        self.scales.decide(self.files, self._heads)
        if not self.problems.count:
            self._decode(entries)

    def notices(self) -> list[Notice]:
        turned = [number for number, head in self._heads.items() if head.orientation > 1]
        frames = [number for number, head in self._heads.items() if head.frames]
        clear = [number for number, head in self._heads.items() if head.transparent]
        groups = (
            (
                "read_as",
                turned,
                "turned as the EXIF orientation says; annotations are taken to lie on the image as viewers show it",
            ),
            ("read_as", frames, "with more than one frame or page: the first is read"),
            ("read_as", clear, "with transparency: laid on white"),
            (
                "flat",
                self._flat,
                f"with next to nothing to see: in each colour, the darkest and the brightest value differ by less than "
                f"{FLAT} of 255, but for {FLAT_SPECKS:.1%} of the pixels",
            ),
        )
        return self.scales.notices(self._names) + [
            each
            for kind, numbers, text in groups
            for each in notice(
                kind, f"{counted(len(numbers), 'image')} {text}", [self._names[number] for number in numbers]
            )
        ]

    def _told(self, number: int) -> str:
        return f"{self.folder}/images/{self._names[number]}"

    def _find(self, entry: ImageEntry) -> None:
        """The file of an entry, once its head agrees with the entry."""
        try:
            file = self._places.find(entry.file_name)
        except DataError as error:
            self.problems.add(str(error), error.reason)
            return
        try:
            head = images.head(file)
        except images.ImageProblem as error:
            self.problems.add(f"{self._told(entry.id)}: {error}")
            return
        self.files[entry.id], self._heads[entry.id] = file, head
        if head.shown != (entry.width, entry.height):
            self.problems.add(f"{self._told(entry.id)}: {_other_size(head, entry, self.listing)}")

    def _apart(self) -> None:
        """An image that stands there under two ids could be trained on and held out at once."""
        first: dict[Path, int] = {}
        for number, file in self.files.items():
            if (other := first.setdefault(file, number)) != number:
                self.problems.add(f"{self._told(number)}: the images {other} and {number} are this one file")

    def _decode(self, entries: Mapping[int, ImageEntry]) -> None:
        left = DECODED
        for number, entry in entries.items():
            if (left := left - entry.width * entry.height) < 0:
                return
            try:
                pixels = images.rgb(self.files[number], self.scales.float_top)
            except images.ImageProblem as error:
                self.problems.add(f"{self._told(number)}: {error}")
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


def _other_size(head: images.Head, entry: ImageEntry, listing: str) -> str:
    (width, height), listed = head.shown, (entry.width, entry.height)
    said = f"{listing} says {entry.width} × {entry.height}"
    if head.shown == head.stored:
        return f"it has {width} × {height} pixels, and {said}"
    as_stored = ", as it is stored; annotate it as it is shown, or remove the tag" if listed == head.stored else ""
    return f"its EXIF orientation {head.orientation} shows it with {width} × {height} pixels, and {said}{as_stored}"
