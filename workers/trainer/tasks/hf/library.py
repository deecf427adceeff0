"""The library transformers, imported only when a run uses it, since that takes seconds."""

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
    """The module, configured never to download anything."""
    if find_spec("transformers") is None:
        raise LibraryMissing("this worker has no transformers; install attnservice with its extra `models`")
    os.environ["HF_HUB_OFFLINE"] = "1"
    mend_torchvision()
    return import_module("transformers")


@cache
def mend_torchvision() -> None:
    """Make torchvision importable beside a torch that it was not built for, such as a CPU build: its compiled operators
    do not load then, and its import fails when it registers their shapes. Operators defined here without a kernel
    let it pass; transformers and timm do not call them."""
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(library)
        import_module("torchvision")


_KEPT: list[Any] = []  # a library that is garbage-collected removes its definitions
