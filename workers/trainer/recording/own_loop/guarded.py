"""Instruments inside somebody else's training never end it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Guarded:
    """Runs the work of instruments inside somebody's training: the first failure of one is a warning that says what is
    missing from then on, and the instrument is not asked again."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log
        self.step = 0
        self._broken: set[str] = set()

    def __call__(self, what: str, work: Callable[[], T], instead: T) -> T:
        if what in self._broken:
            return instead
        try:
            return work()
        except Exception as error:  # whatever it is, the training goes on
            self._broken.add(what)
            self.warn(f"from step {self.step} on there is no {what}: {type(error).__name__}: {error}")
            return instead

    def warn(self, text: str) -> None:
        """Also where warnings are errors, and where the folder itself is what is broken."""
        with suppress(Exception):
            self.log(text)
        with suppress(Warning):
            warnings.warn(f"recording: {text}", RuntimeWarning, stacklevel=2)
