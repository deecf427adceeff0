"""The reader of image files, against arrays: every mode keeps its scale, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from workers.trainer.data.images import reader

Pixels = NDArray[np.uint8]
GREY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def arrow() -> Pixels:
    """[4, 6, 3]: no two turns or mirrors of it are equal."""
    pixels = np.full((4, 6, 3), 10, np.uint8)
    pixels[0, :4] = (200, 0, 0)
    pixels[1, 0] = (0, 0, 200)
    return pixels


# By the EXIF standard: where the stored picture's row 0 and column 0 lie on the shown one.
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.swapaxes(0, 1),  # left, top
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda stored: stored.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / f"turned.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(arrow()).save(file, exif=exif, **lossless)
    wanted = SHOWN[orientation](arrow())
    head = reader.head(file)
    assert (head.stored, head.shown) == ((6, 4), wanted.shape[1::-1])
    assert head.orientation == orientation
    assert (reader.rgb(file) == wanted).all()


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(arrow()).save(tmp_path / "x.png", exif=exif)
    assert (reader.rgb(tmp_path / "x.png") == arrow()).all()


@pytest.mark.parametrize(("ending", "order"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_16_bit_grey_keeps_its_scale(tmp_path: Path, ending: str, order: str) -> None:
    file = tmp_path / f"deep.{ending}"
    Image.fromarray((GREY.astype(np.uint16) * 257).astype(order)).save(file)
    assert reader.head(file).depth == "grey16"
    assert (reader.values(file) == GREY.astype(np.uint16) * 257).all()
    assert (reader.rgb(file) == GREY[..., None]).all()


def test_floating_point_takes_the_scale_that_it_is_given(tmp_path: Path) -> None:
    for top in (1.0, 255.0):
        file = tmp_path / f"{top}.tif"
        Image.fromarray((GREY / 255 * top).astype(np.float32)).save(file)
        assert (reader.rgb(file, top) == GREY[..., None]).all()
    with pytest.raises(reader.ImageProblem, match="mode F: the range of its values is not known"):
        reader.rgb(file)


def test_16_bit_colours_keep_their_high_byte(tmp_path: Path) -> None:
    deep = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1).astype(">u2") * 257
    file = tmp_path / "deep.ppm"
    file.write_bytes(b"P6 20 12 65535\n" + deep.astype(">u2").tobytes())
    assert (reader.rgb(file) == deep // 257).all()


def test_modes_of_8_bits_are_what_they_show(tmp_path: Path) -> None:
    colours = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
    ink = np.concatenate([255 - colours, np.zeros((12, 20, 1), np.uint8)], -1)
    palette = Image.fromarray(GREY, "L").quantize(256)
    made = {
        "grey.png": (Image.fromarray(GREY), GREY[..., None]),
        "colour.bmp": (Image.fromarray(colours), colours),
        "ink.tif": (Image.fromarray(ink, "CMYK"), colours),
        "palette.gif": (palette, GREY[..., None]),
        "bits.png": (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)[..., None]),
    }
    for name, (image, wanted) in made.items():
        image.save(tmp_path / name)
        assert (reader.rgb(tmp_path / name) == wanted).all(), name


def test_what_is_transparent_lies_on_white_whatever_colour_it_hides(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (200, 0, 0, 255)
    pixels[2:] = (7, 7, 7, 0)
    wanted = np.where(np.arange(4)[:, None, None] < 2, np.array([200, 0, 0]), 255)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "alpha.png")
    keyed = Image.new("P", (4, 4), 1)
    keyed.putpalette([200, 0, 0, 7, 7, 7])
    keyed.paste(0, (0, 0, 4, 2))
    keyed.save(tmp_path / "keyed.gif", transparency=1)
    grey = np.where(np.arange(4)[:, None, None] < 2, [0, 255], [9, 0]).astype(np.uint8).repeat(4, 1)
    Image.fromarray(grey, "LA").save(tmp_path / "grey.png")
    assert (reader.rgb(tmp_path / "alpha.png") == wanted).all()
    assert (reader.rgb(tmp_path / "keyed.gif") == wanted).all()
    assert (reader.rgb(tmp_path / "grey.png")[2:] == 255).all()
    assert not reader.rgb(tmp_path / "grey.png")[:2].any()
    assert reader.head(tmp_path / "alpha.png").transparent


@pytest.mark.parametrize("ending", ["gif", "webp", "tif"])
def test_of_several_frames_the_first_is_read_and_the_head_says_so(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:])
    assert reader.head(tmp_path / f"x.{ending}").frames
    assert (reader.rgb(tmp_path / f"x.{ending}") == 255).all()


def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"text")
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "whole.tif")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    Image.fromarray((GREY.astype(np.uint16) * 257).astype(np.uint16)).save(tmp_path / "turned.tif", tiffinfo={262: 0})
    Image.fromarray(arrow()).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-30])
    for name, told in {
        "empty.png": "the file is empty",
        "text.png": "not an image that can be opened",
        "whole.tif": "mode I: 32-bit integers",
        "nan.tif": "not finite",
        "turned.tif": "0 is white",
        "cut.png": "cannot be decoded",
    }.items():
        read = reader.values if name == "nan.tif" else reader.rgb
        with pytest.raises(reader.ImageProblem, match=told):
            read(tmp_path / name)
    Image.fromarray(GREY).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(reader.ImageProblem, match="decompression bomb"):
        reader.head(tmp_path / "large.png")
