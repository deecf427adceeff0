"""Models that save memory by computing a part again in the backward pass, looked at as if they kept everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Kept:
    """Stands for CheckpointFunction, whose forward pass no gradient goes through."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve: bool, *args: Any) -> Any:
        return function(*args)


def _kept(*_args: Any, **_given: Any) -> Iterator[None]:
    """Stands for what prepares the recomputation: nothing before the function runs, and nothing after."""
    yield


STANDS_FOR = {"CheckpointFunction": _Kept, "_checkpoint_without_reentrant_generator": _kept}


@contextmanager
def nothing_recomputed() -> Iterator[None]:
    """Inside, `torch.utils.checkpoint` calls its function, whoever has imported it under whatever name: what is
    replaced is inside it. Recomputing while derivatives are taken would run under the tracer and its hooks."""
    before = {name: getattr(checkpoint, name) for name in STANDS_FOR if hasattr(checkpoint, name)}
    for name in before:
        setattr(checkpoint, name, STANDS_FOR[name])
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(checkpoint, name, own)
