"""Drawing of an attention map of one sequence, with a word at every row and column."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from workers.trainer.tasks.pictures import BACK, BAD, GAP, GOOD, INK

CELL, MARGIN, LINE = 34, 84, 18
LOW, HIGH = np.array(BACK), np.array((64, 224, 255))
_GLYPHS = "我吃苹果"
_FONTS = ("NotoSansCJK", "NotoSansSC", "NotoSerifCJK", "SourceHan", "wqy-", "DroidSansFallback", "uming", "ukai")


def heat(
    weights_TS: NDArray[np.float32], labels: list[str], targets: NDArray[np.int64], caption: str, good: bool
) -> Image.Image:
    """A row for each query, a column for each key; brighter is more; a frame marks the key of each query's target."""
    count = len(labels)
    side = MARGIN + count * CELL
    image = Image.new("RGB", (side + GAP, side + LINE + GAP), BACK)
    draw = ImageDraw.Draw(image)
    shown = drawable(labels)
    for row in range(count):
        draw.text((4, MARGIN + row * CELL + 8), shown[row], fill=INK, font=_font(14))
        draw.text((MARGIN + row * CELL + 2, MARGIN - 20 - 18 * (row % 2)), shown[row], fill=INK, font=_font(12))
        for column in range(count):
            _cell(draw, row, column, float(weights_TS[row, column]), column == targets[row])
    draw.text((4, side + 2), caption, fill=GOOD if good else BAD, font=_font(14))
    return image


def drawable(labels: list[str]) -> list[str]:
    """The labels, or numbers if this machine has no font for their glyphs."""
    if all(label.isascii() for label in labels) or font_with_chinese() is not None:
        return labels
    return [str(index + 1) for index in range(len(labels))]


@cache
def font_with_chinese() -> Path | None:
    """A font of this machine that Pillow can open and that has different glyphs for Chinese words."""
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts"]
    for folder, name in product(folders, _FONTS):
        for path in sorted(folder.rglob(f"{name}*.[to]t[cf]")):
            if _draws_chinese(path):
                return path
    return None


def _draws_chinese(path: Path) -> bool:
    try:
        font = ImageFont.truetype(path, 16)
    except OSError:
        return False
    return len({bytes(font.getmask(glyph)) for glyph in _GLYPHS}) == len(_GLYPHS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    path = font_with_chinese()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def _cell(draw: ImageDraw.ImageDraw, row: int, column: int, weight: float, wanted: bool) -> None:
    left, top = MARGIN + column * CELL, MARGIN + row * CELL
    red, green, blue = (int(value) for value in LOW + (HIGH - LOW) * weight)
    draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=(red, green, blue))
    if wanted:
        draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), outline=GOOD, width=2)
