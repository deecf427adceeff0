"""Run models with activation checkpointing without recomputation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Kept:
    """Replaces CheckpointFunction, whose forward pass records no graph."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve: bool, *args: Any) -> Any:
        return function(*args)


def _kept(*_args: Any, **_given: Any) -> Iterator[None]:
    """Replaces what prepares the recomputation: does nothing."""
    yield


REPLACEMENTS = {"CheckpointFunction": _Kept, "_checkpoint_without_reentrant_generator": _kept}


@contextmanager
def nothing_recomputed() -> Iterator[None]:
    """Inside, `torch.utils.checkpoint` just calls its function. Its internals are replaced, so that this holds under
    whatever name it was imported. A recomputation during derivatives would run under the tracer and its hooks."""
    before = {name: getattr(checkpoint, name) for name in REPLACEMENTS if hasattr(checkpoint, name)}
    for name in before:
        setattr(checkpoint, name, REPLACEMENTS[name])
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(checkpoint, name, own)
