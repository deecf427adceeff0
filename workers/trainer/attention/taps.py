"""Catching what every attention site sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from workers.trainer.attention.attention import Tap
from workers.trainer.attention.sites import sites


@contextmanager
def taps(model: nn.Module) -> Iterator[dict[str, Tap]]:
    """Catch the call of every site that runs inside."""
    seen: dict[str, Tap] = {}
    for name, site in sites(model).items():
        site.tap = lambda tap, name=name: seen.__setitem__(name, tap)
    try:
        yield seen
    finally:
        for site in sites(model).values():
            site.tap = None
