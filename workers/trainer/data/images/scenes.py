"""Synthetic street scenes: cars, trees and houses of five colours between sky and road, with exact masks and parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from experiments.spec import ScenesData
from workers.trainer.data.images.lexicon import COLOURS, THINGS
from workers.trainer.data.images.prompts import Prompt, Word
from workers.trainer.data.images.samples import Sample
from workers.trainer.data.images.scene_prompts import Thing, choose_prompt, prompt_for
from workers.trainer.data.images.shapes import PARTS, RGB, ROADS, SHAPES, SKIES, Colour, Grid

SKY, ROAD = 254, 253  # labels of stuff
MIN_PIXELS = 12  # a thing with fewer visible pixels counts as hidden
OVERLAP = 0.15  # of a new thing's area that may cover another thing
TRIES, TRIES_OF_PAIRS = 8, 40

Pair = tuple[Word, Word]  # colour and kind
Pairs = tuple[Pair, ...]


@dataclass
class Canvas:
    """A scene that is being drawn."""

    image: NDArray[np.float32]  # H, W, 3
    labels: NDArray[np.uint8]  # H, W: the number of the thing, or SKY or ROAD
    parts: NDArray[np.uint8]  # H, W: an index into PARTS
    horizon: float
    things: list[Thing] = field(default_factory=list)

    def shows(self, label: int) -> bool:
        return int((self.labels == label).sum()) >= MIN_PIXELS


@dataclass(frozen=True)
class Painter:
    """Makes samples. `compositional`: each shows a held-out thing and prompts for its colour and class."""

    data: ScenesData
    compositional: bool = False

    def __call__(self, rng: np.random.Generator) -> Sample:
        held_out = _pairs(self.data.held_out)
        if not self.compositional:
            return self._sample(rng, held_out, None)
        return self._sample(rng, held_out, held_out[int(rng.integers(len(held_out)))])

    def _sample(self, rng: np.random.Generator, held_out: Pairs, wanted: Pair | None) -> Sample:
        canvas = _ground(rng, self.data.canvas)
        if wanted:
            _place(rng, canvas, wanted, TRIES_OF_PAIRS)
        for _ in range(rng.integers(1, 5)):
            _place(rng, canvas, _any_pair(rng, held_out), TRIES)
        twin = self._twin(rng, canvas, held_out)
        canvas.image += rng.normal(0, 8, canvas.image.shape).astype(np.float32)
        visible = [thing for thing in canvas.things if canvas.shows(thing.label)]
        if wanted and visible and visible[0].label == 1:
            prompt = prompt_for(rng, self.data.language, visible, visible[0])
        else:
            prompt = self._prompt(rng, canvas, visible, held_out, twin)
        image = canvas.image.clip(0, 255).astype(np.uint8)
        kinds = {thing.label: THINGS.index(thing.kind) for thing in visible}
        colours = {thing.label: COLOURS.index(thing.colour) for thing in visible}
        return Sample(image, canvas.labels, *prompt, canvas.parts, kinds, colours)

    def _prompt(
        self, rng: np.random.Generator, canvas: Canvas, visible: list[Thing], held_out: Pairs, twin: Thing | None
    ) -> Prompt:
        stuff = [label if canvas.shows(label) else 0 for label in (SKY, ROAD)]
        pair = twin if twin in visible else None
        return choose_prompt(rng, self.data, visible, stuff, free=_free(held_out), pair=pair)

    def _twin(self, rng: np.random.Generator, canvas: Canvas, held_out: Pairs) -> Thing | None:
        """In a share of the scenes, draw a thing of the first one's class in another colour. Returns one of the two."""
        if not self.data.distractors or rng.random() >= self.data.distractors or not canvas.things:
            return None
        first = canvas.things[0]
        others = [c for c in COLOURS if c != first.colour and (c, first.kind) not in held_out]
        before = len(canvas.things)
        _place(rng, canvas, (others[rng.integers(len(others))], first.kind), TRIES_OF_PAIRS)
        if len(canvas.things) == before or not canvas.shows(canvas.things[-1].label):
            return None
        return (first, canvas.things[-1])[rng.integers(2)]


def scene(data: ScenesData, *, compositional: bool = False) -> Callable[[np.random.Generator], Sample]:
    """A maker of samples with this canvas, share of absent prompts and language."""
    return Painter(data, compositional)


def _pairs(held_out: tuple[str, ...]) -> Pairs:
    return tuple(pair for pair in product(COLOURS, THINGS) if f"{pair[0][0]} {pair[1][0]}" in held_out)


def _free(held_out: Pairs) -> list[Pair]:
    """What prompts may name."""
    return [pair for pair in product(COLOURS, THINGS) if pair not in held_out]


def _any_pair(rng: np.random.Generator, held_out: Pairs) -> Pair:
    kind, colour = THINGS[rng.integers(len(THINGS))], COLOURS[rng.integers(len(COLOURS))]
    while (colour, kind) in held_out:
        colour = COLOURS[rng.integers(len(COLOURS))]
    return colour, kind


def _ground(rng: np.random.Generator, side: int) -> Canvas:
    y, _ = _grid(side)
    horizon = rng.uniform(18, 34) * side / 64
    sky = np.broadcast_to(y < horizon, (side, side))
    image = np.where(sky[..., None], _jitter(rng, SKIES[rng.integers(2)]), _jitter(rng, ROADS[rng.integers(2)]))
    labels, parts = np.where(sky, SKY, ROAD), np.where(sky, PARTS.index("sky"), PARTS.index("road"))
    return Canvas(image.astype(np.float32), labels.astype(np.uint8), parts.astype(np.uint8), horizon)


def _place(rng: np.random.Generator, canvas: Canvas, pair: Pair, tries: int) -> None:
    """Try to draw a thing that hides little of the others."""
    side, (colour, kind) = len(canvas.labels), pair
    unit = side / 64
    y, x = _grid(side)
    for _ in range(tries):
        half = rng.uniform(6, 11) * unit
        centre_x = rng.uniform(half, side - half)
        centre_y = rng.uniform(max(canvas.horizon - half * 0.3, half), side - half)
        shape = SHAPES[THINGS.index(kind)]
        layers = shape(x - centre_x, y - centre_y, half, _jitter(rng, RGB[colour[0]]))
        whole = np.logical_or.reduce([mask for _, mask, _ in layers])
        if (whole & (canvas.labels < ROAD)).sum() > OVERLAP * whole.sum():
            continue
        for part, mask, paint_colour in layers:
            canvas.image[mask] = paint_colour
            canvas.parts[mask] = PARTS.index(part)
        thing = Thing(len(canvas.things) + 1, colour, kind)
        canvas.labels[whole] = thing.label
        canvas.things.append(thing)
        return


def _jitter(rng: np.random.Generator, colour: tuple[int, int, int]) -> Colour:
    return (np.array(colour) + rng.normal(0, 8, 3)).astype(np.float32)


def _grid(side: int) -> tuple[Grid, Grid]:
    ticks = np.arange(side, dtype=np.float32) + 0.5
    return ticks[:, None], ticks[None, :]
