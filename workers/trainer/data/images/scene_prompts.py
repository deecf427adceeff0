"""The prompt of a scene: for something absent, for stuff, a class, or a colour and a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.spec import ScenesData
from workers.trainer.data.images.lexicon import STUFF, THINGS
from workers.trainer.data.images.prompts import Language, Prompt, Word, name, say

STUFF_SHARE, CLASS_SHARE = 0.12, 0.24


@dataclass(frozen=True)
class Thing:
    """A drawn thing: its number in the label map, and its words."""

    label: int
    colour: Word
    kind: Word


def choose_prompt(
    rng: np.random.Generator,
    data: ScenesData,
    things: list[Thing],
    stuff: Sequence[int],
    *,
    free: list[tuple[Word, Word]],
    pair: Thing | None,
) -> Prompt:
    """`stuff` are the labels of sky and road (0: hidden), `free` the colours and classes that a prompt may name.
    `pair`, which has a twin in another colour, is the target unless the prompt is absent."""
    if rng.random() < data.absent or not things:
        return (), _absent(rng, data.language, things, free), ""
    if pair is not None:
        return prompt_for(rng, data.language, things, pair)
    if rng.random() < STUFF_SHARE:
        which = int(rng.integers(2))
        if stuff[which]:
            return (stuff[which],), say(rng, data.language, STUFF[which]), ""
    thing = things[rng.integers(len(things))]
    if rng.random() < CLASS_SHARE:
        alike = tuple(other.label for other in things if other.kind == thing.kind)
        return alike, say(rng, data.language, thing.kind), ""
    return prompt_for(rng, data.language, things, thing)


def prompt_for(rng: np.random.Generator, language: Language, things: list[Thing], thing: Thing) -> Prompt:
    """By colour and class. The other prompt has the colour of another visible thing of the class, if there is one."""
    alike = [other for other in things if other.kind == thing.kind]
    same = tuple(other.label for other in alike if other.colour == thing.colour)
    prompt = say(rng, language, thing.kind, thing.colour)
    others = [other.colour for other in alike if other.colour != thing.colour]
    return same, prompt, name(not prompt.isascii(), thing.kind, others[0]) if others else ""


def _absent(rng: np.random.Generator, language: Language, things: list[Thing], free: list[tuple[Word, Word]]) -> str:
    """A prompt for something that the scene does not show."""
    kinds = [kind for kind in THINGS if all(thing.kind != kind for thing in things)]
    if kinds and rng.random() < CLASS_SHARE:
        return say(rng, language, kinds[rng.integers(len(kinds))])
    there = {(thing.colour, thing.kind) for thing in things}
    left = [pair for pair in free if pair not in there]
    colour, kind = left[rng.integers(len(left))]
    return say(rng, language, kind, colour)
