"""The images of a folder in COCO's format: found, held against their entries, looked at before a run trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workers.protocol import Notice
from workers.trainer.data import images
from workers.trainer.data.coco_entries import ImageEntry
from workers.trainer.data.coco_layout import Places
from workers.trainer.data.errors import DataError, Problems
from workers.trainer.data.notices import counted, notice

DECODED = 2**28  # pixels that are decoded before training: some seconds. Images past them are when they are drawn
DARK_16 = 4096  # 16-bit grey that stays below this is 10 or 12 bits of a camera, of unknown scale
DARK_FLOAT = 16  # floating-point grey between 1 and this is neither 0 … 1 nor 0 … 255
FLAT = 16  # an image whose values lie closer together shows next to nothing


class Pictures:
    """Problems go to `problems`; `float_top` and `notices` are known after `look`."""

    def __init__(self, root: Path, folder: str, listing: str, problems: Problems) -> None:
        self.folder, self.listing, self.problems = folder, listing.rsplit("/", 1)[-1], problems
        self.float_top: float | None = None
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
        self._scales()
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
                f"with next to nothing to see: darkest and brightest value differ by less than {FLAT} of 255",
            ),
        )
        return [
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

    def _scales(self) -> None:
        """One scale for all floating-point images, and a look whether 16-bit ones use their range."""
        tops: dict[str, float] = {}
        for number, head in self._heads.items():
            if not head.depth:
                continue
            try:
                low, high = images.extent(self.files[number])
            except images.ImageProblem as error:
                self.problems.add(f"{self._told(number)}: {error}")
                continue
            if head.depth == "float" and not 0 <= low <= high <= 255:
                self.problems.add(
                    f"{self._told(number)}: mode F with values from {low:.4g} to {high:.4g}: neither 0 … 1 nor 0 … 255"
                )
            tops[head.depth] = max(high, tops.get(head.depth, 0.0))
        if "grey16" in tops and tops["grey16"] < DARK_16:
            self.problems.add(
                f"{self.folder}: 16-bit grey images (mode I;16) with no value above {tops['grey16']:.0f} of 65535: "
                "their range is not known; scale them to 16 bits or save 8"
            )
        if "float" in tops:
            self._float_scale(tops["float"])

    def _float_scale(self, top: float) -> None:
        if 1 < top < DARK_FLOAT:
            self.problems.add(
                f"{self.folder}: floating-point images (mode F) with values up to {top:.4g}: neither 0 … 1 nor 0 … 255"
            )
        self.float_top = 1.0 if top <= 1 else 255.0

    def _decode(self, entries: Mapping[int, ImageEntry]) -> None:
        left = DECODED
        for number, entry in entries.items():
            if (left := left - entry.width * entry.height) < 0:
                return
            try:
                pixels = images.rgb(self.files[number], self.float_top)
            except images.ImageProblem as error:
                self.problems.add(f"{self._told(number)}: {error}")
                continue
            if int(pixels.max()) - int(pixels.min()) < FLAT:
                self._flat.append(number)


def _other_size(head: images.Head, entry: ImageEntry, listing: str) -> str:
    (width, height), listed = head.shown, (entry.width, entry.height)
    said = f"{listing} says {entry.width} × {entry.height}"
    if head.shown == head.stored:
        return f"it has {width} × {height} pixels, and {said}"
    as_stored = ", as it is stored; annotate it as it is shown, or remove the tag" if listed == head.stored else ""
    return f"its EXIF orientation {head.orientation} shows it with {width} × {height} pixels, and {said}{as_stored}"
