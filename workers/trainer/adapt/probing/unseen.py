"""Modules that their library calls attention, and in which none was seen."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import nn

from .tracing import Tracer

CALLED = re.compile(r"att(entio)?n", re.IGNORECASE)
WHY = "is called {kind}, and no softmax over products of queries and keys was seen in it"


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
