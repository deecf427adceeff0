"""Modules whose library calls them attention, and in which none was detected."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import nn

from .tracing import Tracer

CALLED = re.compile(r"att(entio)?n", re.IGNORECASE)
WHY = "is called {kind}, and no softmax over products of queries and keys was seen in it"
NONE = "computes no attention that can be seen: no softmax ran in it"
UNFOLLOWED = "computes no attention that can be followed: a softmax ran in it, not over products of queries and keys"
PLAIN = "its attention weights come from a layer, not from products of queries and keys"


def why_none(name: str, tracer: Tracer) -> str:
    """Why no attention was detected in a module that is called attention."""
    if any(name in event.path for event in tracer.plain):
        return PLAIN
    return UNFOLLOWED if name in tracer.softmaxed else NONE


def plain(modules: Iterable[str], detected: Collection[str]) -> dict[str, str]:
    """Modules that weight values with a softmax of something other than products of queries and keys."""
    return {f"{name or '(the model)'}{' (another softmax)' if name in detected else ''}": PLAIN for name in modules}


def unseen(modules: Mapping[str, nn.Module], tracer: Tracer, known: Collection[str]) -> dict[str, str]:
    """The outermost modules that ran, whose class is called attention, that multiply with weights, and that neither
    contain detected attention or `known` modules nor are inside them."""
    detected = {name for event in tracer.events for name in event.path}
    reasons: dict[str, str] = {}
    for name, module in modules.items():
        if name not in tracer.ran or name in detected or not _multiplies(module, tracer):
            continue
        if not any(_inside(name, each) or _inside(each, name) for each in {*known, *reasons}):
            reasons[name] = WHY.format(kind=type(module).__name__)
    return reasons


def _multiplies(module: nn.Module, tracer: Tracer) -> bool:
    """Whether a module's class is called attention and one of its weights was multiplied with an input."""
    called = CALLED.search(type(module).__name__) is not None
    return called and any(id(each) in tracer.weights for each in module.parameters())


def _inside(name: str, other: str) -> bool:
    return not other or name == other or name.startswith(f"{other}.")
