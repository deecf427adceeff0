"""Reads image files of every mode with a known range, as 8-bit RGB, turned as viewers show them.

- 8 bits, palettes, 1 bit, CMYK, YCbCr: as Pillow converts them; colour profiles are not applied.
- 16-bit grey: 0 … 65535 becomes 0 … 255. Pillow keeps the high byte of 16-bit colours, which is the same scale.
- Floating point: 0 … 1 or 0 … 255, which the caller decides for a whole folder (`float_top`).
- Transparency: on white.
- EXIF orientation: applied. Several frames or pages: the first.
Everything else raises ImageProblem.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
GREY_16_AS_32 = ("PNG", "PPM")  # formats whose 16 bits some versions of Pillow open as 32
TOP_16 = 65535.0
DEEP_COLOURS = ("RGB", "RGBA", "RGBX", "LA")  # as which Pillow opens 16-bit colours
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF's tag and a value of it
WHITE = (255, 255, 255, 255)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation: from the stored picture to the shown one
PNG_CHUNKS = 8  # bytes of a PNG before its first chunk
PNG_TAGS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # chunks that may hold an orientation, as EXIF, XMP or a raw profile
SIDEWAYS = 5  # orientations from here on swap width and height


class ImageProblem(ValueError):
    """The file cannot be read as an image; the message does not name it."""


@dataclass(frozen=True)
class Head:
    """What a file declares before its pixels are decoded. Sizes are width, height."""

    stored: tuple[int, int]
    shown: tuple[int, int]  # once the EXIF orientation is applied
    orientation: int  # 1 to 8; 1 if there is none
    depth: str  # "grey16", "colour16" or "float" if the values need a scale, else ""
    transparent: bool
    frames: bool  # more than one, as in animations and TIFFs of several pages


def head(file: Path) -> Head:
    """Raises ImageProblem: no image, too large, or a mode with an unknown range of values."""
    with _opened(file) as image:
        depth = _depth(image) or ("colour16" if _deep_colours(image) else "")
        if image.format == "PNG" and _tags_behind_pixels(file):
            image.load()
        orientation, size = _orientation(image), image.size
        swapped = (size[1], size[0]) if orientation >= SIDEWAYS else size
        stored, shown = (swapped, size) if _sized_as_shown(image) else (size, swapped)
        frames = bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # there, previews
        return Head(stored, shown, orientation, depth, _transparent(image), frames)


def values(file: Path) -> NDArray[Any]:
    """The values of a 16-bit or floating-point image without transparency; 16-bit colours as the largest value with
    their high byte. Raises ImageProblem."""
    with _opened(file) as image:
        pixels = np.asarray(image)
    if not np.isfinite(pixels).all():
        raise ImageProblem("it has values that are not finite")
    if pixels.dtype == np.uint8:
        return pixels[..., : 3 if pixels.shape[-1] > 2 else 1].astype(np.uint16) * 256 + 255
    return pixels


def rgb(file: Path, float_top: float | None = None) -> NDArray[np.uint8]:
    """[height, width, 3] as shown. `float_top` is white in floating-point images. Raises ImageProblem."""
    with _opened(file) as image:
        image.load()
        depth = _depth(image)
        orientation = _orientation(image)  # of a TIFF 1 by now
        plain = _scaled(image, TOP_16 if depth == "grey16" else float_top) if depth else _converted(image)
    turned = plain.transpose(TURNS[orientation]) if orientation in TURNS else plain
    return np.array(turned.convert("RGB"))


def _converted(image: Image.Image) -> Image.Image:
    if not _transparent(image):
        return image.convert("RGB")
    full = image if image.mode != "La" else image.convert("LA")
    layer = full.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer)


def _scaled(image: Image.Image, top: float | None) -> Image.Image:
    if top is None:
        raise ImageProblem(f"mode {image.mode}: the range of its values is not known")
    values = np.asarray(image).astype(np.float64) * (255 / top)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _depth(image: Image.Image) -> str:
    mode = image.mode
    if mode in (*GREY_16, "I", "F") and _white_is_zero(image):
        raise ImageProblem(
            f"mode {mode}: in this TIFF 0 is white, and Pillow does not invert it; save it with 0 as black"
        )
    if mode in GREY_16 or (mode == "I" and image.format in GREY_16_AS_32):
        return "grey16"
    if mode == "F":
        return "float"
    if mode not in PLAIN and mode not in TRANSPARENT:
        kind = "32-bit integers have no known range" if mode == "I" else "this mode is not supported"
        raise ImageProblem(f"mode {mode}: {kind}; save it as 8-bit RGB or grey")
    return ""


def _white_is_zero(image: Image.Image) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO  # type: ignore[attr-defined]


def _deep_colours(image: Image.Image) -> bool:
    """Whether the file has 16 bits for each colour. Formats that say how many they use are scaled already."""
    tiles = getattr(image, "tile", [])
    return image.mode in DEEP_COLOURS and any(";16" in str(tile.args) for tile in tiles)


def _transparent(image: Image.Image) -> bool:
    return image.mode in TRANSPARENT or "transparency" in image.info


def _sized_as_shown(image: Image.Image) -> bool:
    """Pillow turns a TIFF itself, and gives the turned size from the start unless the tag is in XMP."""
    return image.format == "TIFF" and ExifTags.Base.Orientation in image.tag_v2  # type: ignore[attr-defined]


def _tags_behind_pixels(file: Path) -> bool:
    """Whether a PNG has metadata that Pillow reads only after the pixels."""
    pixels = False
    with file.open("rb") as stream:
        stream.seek(PNG_CHUNKS)
        while len(start := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", start)
            if pixels and name in PNG_TAGS:
                return True
            pixels |= name == b"IDAT"
            stream.seek(length + 4, 1)  # and its checksum
    return False


def _orientation(image: Image.Image) -> int:
    """1 if the tag is missing or invalid, as viewers do."""
    try:
        tag = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # a PNG's own method would decode the file
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Pillow's errors as ImageProblem."""
    try:
        with Image.open(file) as image:
            yield image
    except ImageProblem:
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageProblem(
            f"it has more than {most:,} pixels, which may be a decompression bomb; make it smaller"
        ) from None
    except UnidentifiedImageError:
        empty = file.stat().st_size == 0
        raise ImageProblem("the file is empty" if empty else "not an image that can be opened") from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise ImageProblem(f"cannot be decoded ({error})") from None
