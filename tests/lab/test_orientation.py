"""Wherever a file keeps its orientation, the head says what decoding does."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lab import coco_folder
from tests.lab.coco_folder import HEIGHT, WIDTH
from tests.lab.test_coco import data, ordered
from tests.lab.test_images import SHOWN, arrow
from workers.trainer.data.images import reader
from workers.trainer.tasks.segment.data import splits

END = b"\0\0\0\0IEND"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def profile(orientation: int) -> bytes:
    """As ImageMagick writes it."""
    content = b"Exif\0\0" + exif(orientation)
    return f"\nexif\n{len(content):8}\n{content.hex()}\n".encode()


CHUNKS: dict[str, Callable[[int], bytes]] = {
    "eXIf": lambda orientation: chunk(b"eXIf", exif(orientation)),
    "XMP": lambda orientation: chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)),
    "raw profile": lambda orientation: chunk(b"tEXt", b"Raw profile type exif\0" + profile(orientation)),
    "zipped profile": lambda orientation: chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile(orientation))
    ),
}


def png(pixels: np.ndarray, written: bytes, *, late: bool) -> bytes:
    saved = BytesIO()
    Image.fromarray(pixels).save(saved, "PNG")
    raw = saved.getvalue()
    place = raw.rindex(END) if late else raw.index(b"IDAT") - 4
    return raw[:place] + written + raw[place:]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_head_of_a_png_knows_what_stands_behind_its_pixels(
    tmp_path: Path, orientation: int, kind: str, late: bool
) -> None:
    file = tmp_path / "turned.png"
    file.write_bytes(png(arrow(), CHUNKS[kind](orientation), late=late))
    wanted = SHOWN[orientation](arrow())
    assert (reader.rgb(file) == wanted).all()
    head = reader.head(file)
    assert head.orientation == orientation
    assert (head.stored, head.shown) == ((6, 4), wanted.shape[1::-1])


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_an_orientation_that_stands_in_xmp_alone_is_the_same_before_and_after_decoding(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    file = tmp_path / f"turned.{ending}"
    if ending == "tif":
        Image.fromarray(arrow()).save(file, tiffinfo={700: xmp(orientation)})
    else:
        Image.fromarray(arrow()).save(file, xmp=xmp(orientation), quality=95)
    pixels, head = reader.rgb(file), reader.head(file)
    assert head.shown == pixels.shape[1::-1]
    with Image.open(file) as image:
        stored = np.asarray(image.convert("RGB")) if ending != "tif" else arrow()
    assert (pixels == SHOWN[head.orientation](stored)).all()


def _late(folder: Path, orientation: int) -> None:
    """Stores what is shown as a camera held in that way does, with the tag behind the pixels."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    for file in (folder / "images").iterdir():
        with Image.open(file) as shown:
            stored = np.array(shown.transpose(turns[orientation]))
        file.write_bytes(png(stored, CHUNKS["eXIf"](orientation), late=True))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_folder_of_such_files_is_turned_with_the_notice(root: Path, orientation: int) -> None:
    coco_folder.write(root / "shapes")
    wanted = splits(data()).train[0].image
    _late(root / "shapes", orientation)
    found = splits(data())
    (notice,) = found.notices
    assert notice.text.startswith("12 images turned as the EXIF orientation says")
    assert (found.train[0].image == wanted).all()


def test_a_folder_that_lists_their_stored_size_is_refused_by_the_tag(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    _late(root / "shapes", 6)
    for entry in listing["images"]:
        entry.update(width=HEIGHT, height=WIDTH)
    coco_folder.save(root / "shapes", listing)
    assert "000.png: its EXIF orientation 6 shows it with 48 × 40 pixels" in ordered("shapes", root).message
