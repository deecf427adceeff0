"""Names of modules in compiled models, without the wrappers of torch.compile."""

from __future__ import annotations

from torch import nn

WRAPPED = "_orig_mod"  # the attribute under which a compiled module keeps the original


def as_written(model: nn.Module) -> nn.Module:
    """The original of a model compiled by `torch.compile`; any other model itself."""
    written = getattr(model, WRAPPED, model)
    return written if isinstance(written, nn.Module) else model


def written_name(name: str) -> str:
    """A module's name without the wrappers of compiled modules."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by its name; the original where it is compiled."""
    return {written_name(name): module for name, module in model.named_modules()}
