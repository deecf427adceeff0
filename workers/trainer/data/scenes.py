"""Synthetic street scenes: cars, trees and houses of five colours between sky and road, with exact masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.spec import ScenesData
from workers.trainer.data.prompts import Word, say
from workers.trainer.data.samples import Sample
from workers.trainer.data.words import COLOURS, STUFF, THINGS

RGB = {
    "red": (205, 45, 45),
    "blue": (50, 90, 210),
    "yellow": (230, 205, 50),
    "green": (45, 155, 65),
    "white": (240, 240, 240),
}
SKIES = ((135, 190, 235), (225, 230, 235))
ROADS = ((110, 110, 115), (135, 105, 80))
DARK, GLASS, TRUNK = (np.array(rgb, np.float32) for rgb in ((35, 35, 40), (90, 110, 130), (105, 75, 45)))
SKY, ROAD = 254, 253  # labels of stuff
MIN_PIXELS = 12  # a thing with less to see is as good as hidden
OVERLAP = 0.15  # of a new thing's area that may cover another thing
TRIES = 8
STUFF_SHARE, CLASS_SHARE = 0.12, 0.24

Grid = NDArray[np.float32]
Mask = NDArray[np.bool_]
Colour = NDArray[np.float32]
Layer = tuple[Mask, Colour]  # pixels of a part, and what they show


@dataclass(frozen=True)
class Thing:
    """A drawn thing: its number in the label map, and its words."""

    label: int
    colour: Word
    kind: Word


def scene(data: ScenesData) -> Callable[[np.random.Generator], Sample]:
    """A maker of samples with this canvas, share of absent prompts and language."""

    def make(rng: np.random.Generator) -> Sample:
        image, labels, things = paint(rng, data.canvas)
        hits, prompt = _ask(rng, data, labels, things)
        return Sample(image, labels, hits, prompt)

    return make


def paint(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[Thing]]:
    """An image, its label map, and the things that can be seen in it."""
    unit = side / 64
    y, x = _grid(side)
    horizon = rng.uniform(18, 34) * unit
    sky = np.broadcast_to(y < horizon, (side, side))
    labels = np.where(sky, SKY, ROAD).astype(np.uint8)
    image = np.where(sky[..., None], _jitter(rng, SKIES[rng.integers(2)]), _jitter(rng, ROADS[rng.integers(2)]))
    image = image.astype(np.float32)
    things: list[Thing] = []
    for _ in range(rng.integers(1, 5)):
        _place(rng, image, labels, things, horizon, unit, x, y)
    image += rng.normal(0, 8, image.shape).astype(np.float32)
    counts = np.bincount(labels.ravel(), minlength=256)
    seen = [thing for thing in things if counts[thing.label] >= MIN_PIXELS]
    return image.clip(0, 255).astype(np.uint8), labels, seen


def _place(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    things: list[Thing],
    horizon: float,
    unit: float,
    x: Grid,
    y: Grid,
) -> None:
    """Try to draw one more thing that hides little of the others."""
    side = len(labels)
    kind, colour = rng.integers(len(THINGS)), COLOURS[rng.integers(len(COLOURS))]
    for _ in range(TRIES):
        half = rng.uniform(6, 11) * unit
        centre_x = rng.uniform(half, side - half)
        centre_y = rng.uniform(max(horizon - half * 0.3, half), side - half)
        layers = SHAPES[kind](x - centre_x, y - centre_y, half, _jitter(rng, RGB[colour[0]]))
        whole = np.logical_or.reduce([mask for mask, _ in layers])
        if (whole & (labels < ROAD)).sum() > OVERLAP * whole.sum():
            continue
        for mask, paint_colour in layers:
            image[mask] = paint_colour
        thing = Thing(len(things) + 1, colour, THINGS[kind])
        labels[whole] = thing.label
        things.append(thing)
        return


def _car(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    body = (np.abs(x) < half) & (y > -0.2 * half) & (y < 0.4 * half)
    cabin = (np.abs(x) < 0.6 * half) & (y >= -0.7 * half) & (y <= -0.2 * half)
    glass = (np.abs(x) < 0.45 * half) & (y >= -0.55 * half) & (y <= -0.25 * half)
    wheels = (np.abs(x) - 0.55 * half) ** 2 + (y - 0.4 * half) ** 2 < (0.27 * half) ** 2
    return [(body | cabin, colour), (glass, GLASS), (wheels, DARK)]


def _tree(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    trunk = (np.abs(x) < 0.18 * half) & (y > 0) & (y < half)
    crown = x**2 + (y + 0.25 * half) ** 2 < (0.75 * half) ** 2
    return [(trunk, TRUNK), (crown, colour)]


def _house(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    wall = (np.abs(x) < 0.75 * half) & (y > -0.15 * half) & (y < 0.9 * half)
    roof = (y <= -0.15 * half) & (y > -0.95 * half) & (np.abs(x) < (y + 0.95 * half) * 1.2)
    door = (np.abs(x) < 0.18 * half) & (y > 0.3 * half) & (y < 0.9 * half)
    return [(wall, colour), (roof, colour * 0.6), (door, DARK)]


SHAPES = (_car, _tree, _house)  # in the order of THINGS


def _ask(
    rng: np.random.Generator, data: ScenesData, labels: NDArray[np.uint8], things: list[Thing]
) -> tuple[tuple[int, ...], str]:
    """Choose what to ask for: nothing that is there, stuff, a class, or a colour and a class."""
    if rng.random() < data.absent or not things:
        return (), _missing(rng, data, things)
    if rng.random() < STUFF_SHARE:
        which = int(rng.integers(2))
        label = (SKY, ROAD)[which]
        if (labels == label).sum() >= MIN_PIXELS:
            return (label,), say(rng, data.language, STUFF[which])
    thing = things[rng.integers(len(things))]
    alike = [other for other in things if other.kind == thing.kind]
    if rng.random() < CLASS_SHARE:
        return tuple(other.label for other in alike), say(rng, data.language, thing.kind)
    same = tuple(other.label for other in alike if other.colour == thing.colour)
    return same, say(rng, data.language, thing.kind, thing.colour)


def _missing(rng: np.random.Generator, data: ScenesData, things: list[Thing]) -> str:
    """A prompt for something that cannot be seen here."""
    kinds = [kind for kind in THINGS if all(thing.kind != kind for thing in things)]
    if kinds and rng.random() < CLASS_SHARE:
        return say(rng, data.language, kinds[rng.integers(len(kinds))])
    there = {(thing.colour, thing.kind) for thing in things}
    free = [(colour, kind) for colour in COLOURS for kind in THINGS if (colour, kind) not in there]
    colour, kind = free[rng.integers(len(free))]
    return say(rng, data.language, kind, colour)


def _jitter(rng: np.random.Generator, colour: tuple[int, int, int]) -> Colour:
    return (np.array(colour) + rng.normal(0, 8, 3)).astype(np.float32)


def _grid(side: int) -> tuple[Grid, Grid]:
    ticks = np.arange(side, dtype=np.float32) + 0.5
    return ticks[:, None], ticks[None, :]
