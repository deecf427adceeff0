"""A site by itself: its first call again, with what it got, without the model around it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class _Called(Exception):
    """The site has been called: what it got is known."""


def alone(model: nn.Module, run: Callable[[], object], site: str) -> tuple[nn.Module, Callable[[], object], str]:
    """The site as a model of its own, a call of it as the first one was, and its name there. All stays the whole
    model where what the site got cannot be copied."""
    module = model.get_submodule(site) if site else model
    got: list[tuple[Any, Any]] = []

    def enter(_module: nn.Module, args: Any, given: Any) -> None:
        got.append(copy.deepcopy((args, given)))
        raise _Called

    hook = module.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with torch.no_grad():
            run()
    except _Called:
        pass
    except Exception:  # what does not copy
        return model, run, site
    finally:
        hook.remove()
    if not got:
        return model, run, site

    def again() -> object:
        args, given = copy.deepcopy(got[0])
        return module(*args, **given)

    return module, again, ""
