"""The classes of a scene's patches, which probes predict. Shapes: P patches, row by row; a patch has A pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from workers.trainer.data.images.lexicon import COLOURS, THINGS
from workers.trainer.data.images.samples import Labels, Sample
from workers.trainer.data.images.scenes import ROAD, SKY
from workers.trainer.data.tokens.lookups import Ints

NONE = -1  # the patch has no class of this target
BLOCKS = 4  # rows and columns of positions to distinguish
CLASSES = {"edge": 2, "colour": len(COLOURS), "class": len(THINGS) + 2, "position": BLOCKS**2}


def _edge(sample: Sample, pixels: Labels) -> Ints:
    """Whether it shows more than one label: two things, a thing and the ground, or sky and road."""
    return (pixels.min(1) != pixels.max(1)).astype(np.int64)


def _colour(sample: Sample, pixels: Labels) -> Ints:
    """The colour of the thing that fills at least half of it."""
    return _of_most(pixels, sample.colours)


def _class(sample: Sample, pixels: Labels) -> Ints:
    """Car, tree, house, sky or road: what fills at least half of it."""
    return _of_most(pixels, {**sample.kinds, SKY: len(THINGS), ROAD: len(THINGS) + 1})


def _position(sample: Sample, pixels: Labels) -> Ints:
    """Which of the 4 × 4 blocks of the image contains it."""
    grid = round(len(pixels) ** 0.5)
    block = np.arange(grid) * BLOCKS // grid
    return (block[:, None] * BLOCKS + block[None, :]).ravel().astype(np.int64)


TARGETS: Mapping[str, Callable[[Sample, Labels], Ints]] = {
    "edge": _edge,
    "colour": _colour,
    "class": _class,
    "position": _position,
}


def truth(sample: Sample, patch: int) -> dict[str, Ints]:
    """Of each target: P classes, NONE where a patch has none."""
    side = len(sample.labels) // patch
    pixels = sample.labels.reshape(side, patch, side, patch).swapaxes(1, 2).reshape(side * side, -1)
    return {name: target(sample, pixels) for name, target in TARGETS.items()}


def _of_most(pixels: Labels, of_label: Mapping[int, int]) -> Ints:
    classes = np.full(len(pixels), NONE, np.int64)
    for label, value in of_label.items():
        classes[(pixels == label).mean(1) >= 0.5] = value
    return classes
