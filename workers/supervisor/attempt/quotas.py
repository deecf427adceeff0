"""Quotas of a run: what exceeds one is dropped, with one warning in the run's history; training goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from django.conf import settings

from experiments import lifecycle
from experiments.store import Incoming
from workers.frames import Frame
from workers.protocol import Artifact

Warn = Callable[[str, str], None]  # kind of event, text


class Quotas:
    """What a run has used so far, earlier attempts included, so that a resumed run is cut at the same place."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._series: set[tuple[str, str]] = set()
        self._files: dict[tuple[str, str, int | None], int] = {}

    def load(self, run_id: int) -> None:
        """Read the usage of earlier attempts from the database."""
        self._series, self._files = lifecycle.usage(run_id)

    def names(self, group: str, names: list[str]) -> list[int]:
        """The columns of a group that are kept."""
        kept = []
        for column, name in enumerate(names):
            if (group, name) in self._series or len(self._series) < settings.ATTN_MAX_SERIES:
                self._series.add((group, name))
                kept.append(column)
        if len(kept) < len(names):
            kept_columns = set(kept)
            dropped = next(name for column, name in enumerate(names) if column not in kept_columns)[:100]
            limit = f"more than {settings.ATTN_MAX_SERIES:,} series (ATTN_MAX_SERIES)"
            self._warn("series capped", f"{limit}: further names are not recorded, the first of them {group}/{dropped}")
        return kept

    def admits(self, message: Artifact, size: int) -> bool:
        """Whether a file is kept; one that replaces another only counts by its size."""
        key = (message.kind, message.name, message.step)
        others = sum(self._files.values()) - self._files.get(key, 0)
        if key not in self._files and len(self._files) >= settings.ATTN_MAX_ARTIFACTS:
            limit = f"more than {settings.ATTN_MAX_ARTIFACTS:,} files (ATTN_MAX_ARTIFACTS)"
        elif others + size > settings.ATTN_MAX_ARTIFACTS_MB * 2**20:
            limit = f"more than {settings.ATTN_MAX_ARTIFACTS_MB:,} MB of files (ATTN_MAX_ARTIFACTS_MB)"
        else:
            self._files[key] = size
            return True
        self._warn("files capped", f"{limit}: further ones are not kept, the first of them {message.name[:100]}")
        return False

    def log(self, full: bool) -> None:
        """Warn where the log is over its limit."""
        if full:
            megabytes = settings.ATTN_MAX_LOG_BYTES / 2**20
            self._warn("log capped", f"the log passed {megabytes:.3g} MB (ATTN_MAX_LOG_BYTES): the rest is not kept")


def cut(group: str, names: list[str], kept: list[int], frame: Frame) -> Incoming:
    """The kept columns of a frame."""
    if len(kept) == len(names):
        return Incoming(group, names, frame.steps, frame.times, frame.values)
    values = np.ascontiguousarray(frame.values[:, kept])
    return Incoming(group, [names[column] for column in kept], frame.steps, frame.times, values)
