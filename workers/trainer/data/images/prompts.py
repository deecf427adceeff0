"""The words of a prompt."""

from __future__ import annotations

from typing import Literal

import numpy as np

from workers.trainer.data.images.lexicon import OF

Language = Literal["both", "en", "zh"]
Word = tuple[str, str]  # English, Chinese
Prompt = tuple[tuple[int, ...], str, str]  # target labels, the prompt, and a prompt for another visible thing


def say(rng: np.random.Generator, language: Language, noun: Word, colour: Word | None = None) -> str:
    """A noun phrase in the wanted language; `both` tosses a coin."""
    return name(language == "zh" or (language == "both" and rng.random() < 0.5), noun, colour)


def name(chinese: bool, noun: Word, colour: Word | None = None) -> str:
    """A noun phrase."""
    if chinese:
        return noun[1] if colour is None else f"{colour[1]} {OF} {noun[1]}"
    return noun[0] if colour is None else f"{colour[0]} {noun[0]}"
