"""The brightness of deep images: what a few saturated pixels, or one image, may not decide for a whole folder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.lab import coco_folder
from tests.lab.test_coco import data
from workers.protocol import Notice
from workers.trainer.data.coco.file import read
from workers.trainer.data.errors import DataError
from workers.trainer.tasks.segment.data import splits

Pixels = np.ndarray[Any, Any]


def written(root: Path, pixels: Callable[[Pixels, int], Pixels], ending: str = "png") -> None:
    """The folder of coco_folder with `pixels` of (grey in 0 … 1, place) in the place of its images. The objects are
    white, and everything else is a grey of 0.25."""
    listing = coco_folder.write(root / "shapes")
    for place, entry in enumerate(listing["images"]):
        file = root / "shapes" / "images" / entry["file_name"]
        colours = np.asarray(Image.open(file))
        grey = np.where((colours == 90).all(-1), 0.25, 1.0)
        file.unlink()
        entry["file_name"] = f"{file.stem}.{ending}"
        save(root / "shapes" / "images" / entry["file_name"], pixels(grey, place))
    coco_folder.save(root / "shapes", listing)


def save(file: Path, pixels: Pixels) -> None:
    if pixels.ndim == 2:
        Image.fromarray(pixels).save(file)
        return
    height, width, _ = pixels.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def deep(top: int, *, hot: int = 0, hot_images: int = 12, value: int = 65535) -> Callable[[Pixels, int], Pixels]:
    """16-bit grey up to `top`, with hot pixels in some of the images."""

    def make(grey: Pixels, place: int) -> Pixels:
        pixels = (grey * top).astype(np.uint16)
        if place < hot_images:
            pixels.flat[:hot] = value
        return pixels

    return make


def colour(make: Callable[[Pixels, int], Pixels]) -> Callable[[Pixels, int], Pixels]:
    return lambda grey, place: np.repeat(make(grey, place)[..., None], 3, -1)


def other(make: Callable[[Pixels, int], Pixels], bright: int) -> Callable[[Pixels, int], Pixels]:
    """The first `bright` images use all 16 bits."""
    return lambda grey, place: deep(65535)(grey, place) if place < bright else make(grey, place)


def floats(top: float, *, hot: float = 0, hot_images: int = 12) -> Callable[[Pixels, int], Pixels]:
    def make(grey: Pixels, place: int) -> Pixels:
        pixels = (grey * top).astype(np.float32)
        if hot and place < hot_images:
            pixels.flat[0] = hot
        return pixels

    return make


REFUSED: dict[str, tuple[Callable[[Pixels, int], Pixels], str, str]] = {
    "10 bits": (deep(1023), "png", "no value above 1023 of 65535"),
    "12 bits": (deep(4095), "png", "no value above 4095 of 65535"),
    "14 bits": (deep(16383), "png", "no value above 16383 of 65535"),
    "12 bits, one hot pixel in one image": (deep(4095, hot=1, hot_images=1), "png", "no value above 4095 of 65535"),
    "12 bits, hot pixels in each image": (deep(4095, hot=5), "png", r"0\.5% of .*pixels.*65535"),
    "14 bits, hot pixels in each image": (deep(16383, hot=5), "png", "no value above 16383 of 65535"),
    "12 bits, one image of 16": (other(deep(4095), 1), "png", "11 of 12 .*no value above 4095 of 65535"),
    "14 bits, one image of 16": (other(deep(16383), 1), "png", "11 of 12 .*no value above 16383 of 65535"),
    "12 bits in colour": (colour(deep(4095)), "png", "16-bit colour.*no value above"),
    "14 bits in colour, hot pixels": (colour(deep(16383, hot=5)), "png", "16-bit colour.*no value above"),
    "12 bits, TIFF": (deep(4095, hot=1), "tif", "no value above 4095 of 65535"),
    "floats to 1 with a hot pixel": (floats(1, hot=200, hot_images=1), "tif", "neither 0 … 1 nor 0 … 255"),
    "floats to 1 with hot pixels": (floats(1, hot=255), "tif", "neither 0 … 1 nor 0 … 255"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_range_that_is_not_used_is_refused_whatever_single_pixels_say(root: Path, what: str) -> None:
    pixels, ending, told = REFUSED[what]
    written(root, pixels, ending)
    with pytest.raises(DataError, match=told):
        splits(data())


READ: dict[str, tuple[Callable[[Pixels, int], Pixels], str, str, float]] = {
    "16 bits": (deep(65535), "png", "12 images of 16-bit grey: 0 … 65535 is read as 0 … 255", 65535),
    "16 bits, not quite": (deep(40000, hot=1), "tif", "12 images of 16-bit grey: 0 … 65535 is read", 65535),
    "16 bits in colour": (colour(deep(65535)), "png", "12 images of 16-bit colour: 0 … 65535 is read", 65535),
    "floats to 1": (floats(1), "tif", "12 images of floating point: 0 … 1 is read as 0 … 255", 1),
    "floats to 255": (floats(255), "tif", "12 images of floating point: 0 … 255 is read as 0 … 255", 255),
}


@pytest.mark.parametrize("what", READ)
def test_the_scale_and_the_highest_value_are_always_told(root: Path, what: str) -> None:
    pixels, ending, told, top = READ[what]
    written(root, pixels, ending)
    found = splits(data())
    (notice,) = found.notices
    assert notice.kind == "read_as"
    assert notice.text.startswith(told)
    assert f"highest value is {'at most ' * ('colour' in what)}{top:g}" in notice.text
    sample = next(sample for sample in map(found.train.__getitem__, range(found.train.size)) if sample.hits)
    assert sample.image[sample.masks.any(0)].mean() > 2 * sample.image[~sample.masks.any(0)].mean()


def by_kind(kind: str) -> Notice:
    (notice,) = (notice for notice in read("shapes").notices if notice.kind == kind)
    return notice


def test_dark_images_in_a_folder_of_16_bits_are_named_first_and_as_flat(root: Path) -> None:
    written(root, lambda grey, place: deep(4095 if place in (3, 7) else 65535, hot=1)(grey, place))
    scale = by_kind("read_as")
    assert "2 of them have no value above 16383" in scale.text
    assert scale.items[0].startswith("003.png: ")
    assert scale.items[1].startswith("007.png: ")
    assert by_kind("flat").items == ["003.png", "007.png"]


def test_an_image_of_one_colour_and_a_hot_pixel_is_flat(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    plain = np.full((coco_folder.HEIGHT, coco_folder.WIDTH, 3), (250, 40, 40), np.uint8)
    Image.fromarray(plain).save(root / "shapes" / "images" / listing["images"][2]["file_name"])
    plain[0, 0] = 255
    Image.fromarray(plain).save(root / "shapes" / "images" / listing["images"][3]["file_name"])
    assert by_kind("flat").items == ["002.png", "003.png"]
