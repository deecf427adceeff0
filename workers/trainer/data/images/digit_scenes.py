"""Real handwritten digits of scikit-learn, enlarged and scattered over a canvas; the prompt names one class."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.spec import DigitScenesData
from workers.trainer.data.images import digits
from workers.trainer.data.images.lexicon import DIGITS
from workers.trainer.data.images.prompts import Prompt, name, say
from workers.trainer.data.images.samples import Sample

HELD_OUT = 0.2  # share of the handwritten digits for evaluation only
INK = 0.25  # of full ink, from which on a pixel belongs to the digit
SIZES = (11, 12, 13, 14)  # side of an enlarged digit on a canvas of 32
TRIES = 12

Pixels = NDArray[np.float32]


def digit_scene(data: DigitScenesData, *, held_out: bool) -> Callable[[np.random.Generator], Sample]:
    """A maker of samples from the training digits, or from the held-out ones."""
    rows = digits.split(HELD_OUT)[int(held_out)]

    def make(rng: np.random.Generator) -> Sample:
        image, labels, classes = _paint(rng, data.canvas, rows)
        return Sample(image, labels, *_prompt(rng, data, classes))

    return make


def _paint(
    rng: np.random.Generator, side: int, rows: slice
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[int, int]]:
    """An image, its label map, and the class of each label."""
    ground, ink = rng.uniform(0, 70, 3).astype(np.float32), rng.uniform(170, 255, 3).astype(np.float32)
    image = np.broadcast_to(ground, (side, side, 3)).copy()
    labels = np.zeros((side, side), np.uint8)
    classes: dict[int, int] = {}
    for _ in range(rng.integers(1, 5)):
        row = int(rng.integers(rows.start, rows.stop))
        size = SIZES[rng.integers(len(SIZES))] * side // 32
        if _place(rng, image, labels, len(classes) + 1, _enlarged(row, size), ink):
            classes[len(classes) + 1] = int(digits.digits()[1][row])
    image += rng.normal(0, 6, image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), labels, classes


def _place(
    rng: np.random.Generator, image: Pixels, labels: NDArray[np.uint8], label: int, digit: Pixels, ink: Pixels
) -> bool:
    """Draw a digit where it touches no other; False if there was no room."""
    size = len(digit)
    strokes = digit > INK
    for _ in range(TRIES):
        top, left = rng.integers(0, len(labels) - size + 1, 2)
        window = np.s_[top : top + size, left : left + size]
        if labels[window][strokes].any():
            continue
        image[window] += digit[..., None] * (ink - image[window])
        labels[window][strokes] = label
        return True
    return False


@lru_cache(maxsize=8192)
def _enlarged(row: int, size: int) -> Pixels:
    image = Image.fromarray(digits.digits()[0][row])
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def _prompt(rng: np.random.Generator, data: DigitScenesData, classes: dict[int, int]) -> Prompt:
    """The other prompt is for another visible digit."""
    there = sorted(set(classes.values()))
    if rng.random() < data.absent:
        absent = [digit for digit in range(len(DIGITS)) if digit not in there]
        return (), say(rng, data.language, DIGITS[absent[rng.integers(len(absent))]]), ""
    wanted = there[rng.integers(len(there))]
    hits = tuple(label for label, digit in classes.items() if digit == wanted)
    prompt = say(rng, data.language, DIGITS[wanted])
    others = [digit for digit in there if digit != wanted]
    return hits, prompt, name(not prompt.isascii(), DIGITS[others[0]]) if others else ""
