"""The library transformers, imported when a run asks for it and not before: it costs seconds."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch


class LibraryMissing(RuntimeError):
    """The worker has no transformers."""


@cache
def transformers() -> Any:
    """The module, told never to fetch anything."""
    if find_spec("transformers") is None:
        raise LibraryMissing("this worker has no transformers: install attnservice with its extra `models`")
    os.environ["HF_HUB_OFFLINE"] = "1"
    mend_torchvision()
    return import_module("transformers")


@cache
def mend_torchvision() -> None:
    """Make torchvision importable beside a torch that it was not built for (the registry's torchvision wants CUDA's
    torch, a CPU build is another): its compiled operators then do not load, and its import fails at the shapes that
    it registers for them. Named here without a kernel, they stop nobody who does not call them; transformers and
    timm do not."""
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(library)
        import_module("torchvision")


_KEPT: list[Any] = []  # a library that is collected takes its definitions with it
