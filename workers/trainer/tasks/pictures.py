"""Drawing of predictions: enlarged images, coloured masks, boxes, a caption below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 256
CAPTION = 24
GAP = 6
BACK = (24, 26, 32)
INK = (236, 238, 242)
GOOD = (92, 214, 122)
BAD = (255, 107, 107)
MARKS = ((255, 92, 173), (64, 224, 255), (255, 214, 64), (148, 120, 255))  # pink, cyan, yellow, violet


def enlarge(pixels: NDArray[np.uint8]) -> Image.Image:
    """[H, W] or [H, W, 3] as an RGB square of SIDE, pixels kept sharp."""
    return Image.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)


def overlay(image: Image.Image, masks: NDArray[np.bool_], boxes: NDArray[np.float64], labels: list[str]) -> Image.Image:
    """Masks [N, H, W] as tints with an outline, boxes [N, 4] as corners in [0, 1], a label on each box."""
    out = image.copy()
    for index, mask in enumerate(masks):
        out = _tinted(out, mask, MARKS[index % len(MARKS)])
    draw = ImageDraw.Draw(out)
    for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        _boxed(draw, box, label, MARKS[index % len(MARKS)])
    return out


def side_by_side(panels: list[Image.Image], captions: list[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Panels in a row, each with a caption in its colour below."""
    width = len(panels) * SIDE + (len(panels) - 1) * GAP
    out = Image.new("RGB", (width, SIDE + CAPTION), BACK)
    draw = ImageDraw.Draw(out)
    for index, (panel, (text, colour)) in enumerate(zip(panels, captions, strict=True)):
        left = index * (SIDE + GAP)
        out.paste(panel, (left, 0))
        draw.text((left + 6, SIDE + 4), text, fill=colour, font=_font(14))
    return out


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _tinted(image: Image.Image, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Image.Image:
    large = Image.fromarray(mask.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    inside = np.asarray(large) > 0
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            core &= np.roll(inside, shift, axis)
    pixels = np.asarray(image).astype(np.float32)
    pixels[inside] = pixels[inside] * 0.6 + np.array(colour, np.float32) * 0.4
    pixels[inside & ~core] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def _boxed(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], label: str, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = (float(edge) for edge in np.clip(box, 0, 1) * (SIDE - 1))
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
    if label:
        corner = (left + 2, max(0.0, top - 17))
        draw.rectangle(draw.textbbox(corner, label, font=_font(13)), fill=BACK)
        draw.text(corner, label, fill=colour, font=_font(13))
