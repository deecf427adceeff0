"""Compiled models under the names that they are written with."""

from __future__ import annotations

from torch import nn

WRAPPED = "_orig_mod"  # what a compiled module keeps the one under that it was made of


def as_written(model: nn.Module) -> nn.Module:
    """The model that `torch.compile` was given, where this is what it gave."""
    written = getattr(model, WRAPPED, model)
    return written if isinstance(written, nn.Module) else model


def written_name(name: str) -> str:
    """A module's name without the wrappers of compiled ones, which share that of what they wrap."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by its name; of a compiled one the one it was made of."""
    return {written_name(name): module for name, module in model.named_modules()}
