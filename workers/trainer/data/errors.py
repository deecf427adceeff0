"""Errors of the data that a spec names."""

from __future__ import annotations

from typing import Literal

SHOWN = 20  # problems that one report names

Reason = Literal["error", "spec"]


class DataError(ValueError):
    """The data cannot be used; the message names the file as the spec does.

    `reason` is the failure that the run reports: "spec" if the spec names what it may not or what does not exist,
    "error" if the content of the file is wrong.
    """

    def __init__(self, message: str, reason: Reason = "error") -> None:
        super().__init__(message)
        self.reason: Reason = reason


class Problems:
    """Everything that is wrong with the data, in one DataError: a line each, the first SHOWN of them."""

    def __init__(self, about: str) -> None:
        self.about, self.count = about, 0
        self._shown: list[str] = []
        self._reason: Reason = "error"

    def add(self, message: str, reason: Reason = "error") -> None:
        self.count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(message)
        if reason == "spec":
            self._reason = reason

    def end(self) -> None:
        """Raises DataError if there are problems."""
        if self.count == 1:
            raise DataError(self._shown[0], self._reason)
        if self.count:
            shown = f"; the first {SHOWN}" if self.count > SHOWN else ""
            raise DataError("\n".join([f"{self.about}: {self.count} problems{shown}:", *self._shown]), self._reason)
