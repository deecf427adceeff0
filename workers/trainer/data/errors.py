"""What is wrong with the data that a spec names."""

from __future__ import annotations

from typing import Literal


class DataError(ValueError):
    """The data cannot be used; the message names the file as the spec does.

    `reason` is the failure that the run reports: "spec" where the spec names what it may not or what is not
    there, "error" where the file is there and its content is at fault.
    """

    def __init__(self, message: str, reason: Literal["error", "spec"] = "error") -> None:
        super().__init__(message)
        self.reason = reason
