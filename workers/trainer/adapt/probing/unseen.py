"""Modules that their library calls attention, and in which none was seen."""

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
    """Why a module that is called attention has no attention that was seen."""
    if any(name in event.path for event in tracer.plain):
        return PLAIN
    return UNFOLLOWED if name in tracer.softmaxed else NONE


def plain(weighed: Iterable[str], seen: Collection[str]) -> dict[str, str]:
    """What weighs values with a softmax of something else than products; beside attention that was seen, or alone."""
    return {f"{name or '(the model)'}{' (another softmax)' if name in seen else ''}": PLAIN for name in weighed}


def unseen(modules: Mapping[str, nn.Module], tracer: Tracer, known: Collection[str]) -> dict[str, str]:
    """The outermost modules that ran, whose class is called attention, that multiply with weights, and that neither
    hold attention that was seen nor what is `known`, nor lie inside such."""
    seen = {name for event in tracer.events for name in event.path}
    found: dict[str, str] = {}
    for name, module in modules.items():
        kind = type(module).__name__
        if not CALLED.search(kind) or name not in tracer.ran or name in seen:
            continue
        if not any(id(each) in tracer.weights for each in module.parameters()):
            continue
        if not any(_inside(name, each) or _inside(each, name) for each in {*known, *found}):
            found[name] = WHY.format(kind=kind)
    return found


def _inside(name: str, other: str) -> bool:
    return not other or name == other or name.startswith(f"{other}.")
