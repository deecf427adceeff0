"""The shapes of a scene's things, as layers of parts from back to front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
PARTS = ("sky", "road", "body", "window", "wheel", "crown", "trunk", "wall", "roof", "door")

Grid = NDArray[np.float32]
Mask = NDArray[np.bool_]
Colour = NDArray[np.float32]
Layer = tuple[str, Mask, Colour]  # a part, its pixels and their colour


def _car(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    body = (np.abs(x) < half) & (y > -0.2 * half) & (y < 0.4 * half)
    cabin = (np.abs(x) < 0.6 * half) & (y >= -0.7 * half) & (y <= -0.2 * half)
    glass = (np.abs(x) < 0.45 * half) & (y >= -0.55 * half) & (y <= -0.25 * half)
    wheels = (np.abs(x) - 0.55 * half) ** 2 + (y - 0.4 * half) ** 2 < (0.27 * half) ** 2
    return [("body", body | cabin, colour), ("window", glass, GLASS), ("wheel", wheels, DARK)]


def _tree(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    trunk = (np.abs(x) < 0.18 * half) & (y > 0) & (y < half)
    crown = x**2 + (y + 0.25 * half) ** 2 < (0.75 * half) ** 2
    return [("trunk", trunk, TRUNK), ("crown", crown, colour)]


def _house(x: Grid, y: Grid, half: float, colour: Colour) -> list[Layer]:
    wall = (np.abs(x) < 0.75 * half) & (y > -0.15 * half) & (y < 0.9 * half)
    roof = (y <= -0.15 * half) & (y > -0.95 * half) & (np.abs(x) < (y + 0.95 * half) * 1.2)
    door = (np.abs(x) < 0.18 * half) & (y > 0.3 * half) & (y < 0.9 * half)
    return [("wall", wall, colour), ("roof", roof, colour * 0.6), ("door", door, DARK)]


SHAPES = (_car, _tree, _house)  # in the order of lexicon.THINGS
