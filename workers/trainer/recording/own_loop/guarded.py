"""Instruments in a user's training never end it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Guarded:
    """Runs instruments in a user's training: an instrument that fails is not run again, and one warning says what is
    missing from then on."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log
        self.step = 0
        self._broken: set[str] = set()

    def __call__(self, what: str, work: Callable[[], T], instead: T) -> T:
        if what in self._broken:
            return instead
        try:
            return work()
        except Exception as error:  # whatever it is, the training continues
            self._broken.add(what)
            self.warn(f"from step {self.step} on there is no {what}: {type(error).__name__}: {error}")
            return instead

    def warn(self, text: str) -> None:
        """Never raises: not where warnings are errors, nor where the folder cannot be written."""
        with suppress(Exception):
            self.log(text)
        with suppress(Warning):
            warnings.warn(f"recording: {text}", RuntimeWarning, stacklevel=2)
