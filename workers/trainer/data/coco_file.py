"""annotations.json of a folder in COCO's format: read, and held against its images before a run trains on it.

The format is that of https://cocodataset.org/#format-data, object detection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.trainer.data import digest
from workers.trainer.data.errors import DataError
from workers.trainer.data.text import below_root, data_root

FILE, IMAGES = "annotations.json", "images"
LARGEST = 2**30  # bytes of annotations.json
LONGEST = 2**14  # pixels of an image's side
SLACK = 1.0  # pixels that a polygon or a box may stand over the edge, as rounding makes them


class Entry(BaseModel):
    """What this reader does not use is let be."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ImageEntry(Entry):
    id: int
    file_name: str = Field(min_length=1)
    width: int = Field(ge=1, le=LONGEST)
    height: int = Field(ge=1, le=LONGEST)


class Rle(Entry):
    """Lengths of runs of 0 and 1 in turn, column by column; as text in COCO's own packing."""

    size: tuple[int, int]  # height, width
    counts: list[int] | str


class Annotation(Entry):
    id: int
    image_id: int
    category_id: int
    segmentation: list[list[float]] | Rle  # polygons x, y, x, y, …, in pixels
    bbox: tuple[float, float, float, float] | None = None  # left, top, width, height
    iscrowd: Literal[0, 1] = 0


class Category(Entry):
    id: int
    name: str = Field(min_length=1)


class Listing(Entry):
    images: list[ImageEntry]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True)
class Folder:
    """A folder whose every entry points at something that is there."""

    name: str  # as the spec has it
    files: dict[int, Path]  # by image id
    images: dict[int, ImageEntry]
    annotations: tuple[Annotation, ...]  # by id
    categories: dict[int, str]  # by id, in order

    @property
    def listing(self) -> str:
        return f"{self.name}/{FILE}"


def read(name: str) -> Folder:
    """Raises DataError that names the file: outside the root, missing, not JSON, or at odds with itself."""
    root = data_root(name)
    folder = below_root(root, name)
    if not folder.is_dir():
        raise DataError(f"{name}: there is no such folder below the data root", "spec")
    told = f"{name}/{FILE}"
    listing = _listing(below_root(root, told), told)
    if not listing.annotations:
        raise DataError(f"{told}: it has no annotations")
    for kind, ids in (
        ("images", [image.id for image in listing.images]),
        ("annotations", [annotation.id for annotation in listing.annotations]),
        ("categories", [category.id for category in listing.categories]),
    ):
        _once(told, kind, ids)
    images = {image.id: image for image in listing.images}
    categories = {category.id: category.name for category in sorted(listing.categories, key=lambda each: each.id)}
    for annotation in listing.annotations:
        for field, known in (("image_id", images), ("category_id", categories)):
            if (wanted := getattr(annotation, field)) not in known:
                raise DataError(f"{told}: annotation {annotation.id}: {field} {wanted} is not listed")
    files = {image.id: _image(root, name, image) for image in listing.images}
    _told(name, {image.file_name: files[image.id] for image in listing.images})
    return Folder(name, files, images, tuple(sorted(listing.annotations, key=lambda each: each.id)), categories)


def _told(name: str, files: dict[str, Path]) -> None:
    try:
        digest.read_files(f"{name}/{IMAGES}", files.items())
    except OSError as error:
        raise DataError(f"{name}/{IMAGES}: an image cannot be read ({error})") from None


def _listing(file: Path, told: str) -> Listing:
    if not file.is_file():
        raise DataError(f"{told}: there is no such file below the data root", "spec")
    try:
        if file.stat().st_size > LARGEST:
            raise DataError(f"{told}: larger than {LARGEST // 2**20} MiB")
        content = file.read_bytes()
        digest.read(told, content)
        return Listing.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise DataError(f"{told}: {at + ': ' if at else ''}{first['msg']}") from None
    except OSError as error:
        raise DataError(f"{told}: cannot be read ({error.strerror})") from None


def _once(told: str, kind: str, ids: Iterable[int]) -> None:
    (number, count), *_ = Counter(ids).most_common(1) or [(0, 0)]
    if count > 1:
        raise DataError(f"{told}: {kind}: id {number} stands there {count} times")


def _image(root: Path, name: str, image: ImageEntry) -> Path:
    """The file of an image, once its head agrees with the entry."""
    told = f"{name}/{IMAGES}/{image.file_name}"
    file = below_root(root, told)
    if not file.is_file():
        raise DataError(f"{told}: there is no such file, though {FILE} lists it")
    try:
        with Image.open(file) as opened:
            width, height = opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise DataError(f"{told}: not an image that can be opened") from None
    if (width, height) != (image.width, image.height):
        listed = f"{image.width} × {image.height}"
        raise DataError(f"{told}: it has {width} × {height} pixels, and {FILE} says {listed}")
    return file
