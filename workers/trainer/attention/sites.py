"""The attention sites of a model: names, matrices, trained parameters, initial weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from workers.protocol import SiteInfo
from workers.trainer.adapt import attached
from workers.trainer.adapt.compiled import as_written, modules_of
from workers.trainer.adapt.parts import Part, whole
from workers.trainer.attention.attention import MATRICES, Attention


def sites(model: nn.Module) -> dict[str, Attention]:
    """Every attention module by its dotted site name: `encoder.0.self_attention` is `encoder.0.self`."""
    return {
        name.removesuffix("_attention"): module
        for name, module in modules_of(as_written(model)).items()
        if isinstance(module, Attention)
    }


def describe(model: nn.Module) -> list[SiteInfo]:
    own = [
        SiteInfo(name=name, kind=name.rpartition(".")[2], heads=site.heads, matrices=list(matrices(site)))
        for name, site in sites(model).items()
    ]
    return own + [site.info() for site in attached(model).values()]


def untrained_sites(model: nn.Module) -> list[str]:
    """Attached sites without a trained matrix: they have no gradients, so their norms are 0."""
    return [
        name
        for name, site in attached(model).items()
        if not any(part.parameter.requires_grad for part in [*site.parts.values(), *site.adapters.values()])
    ]


def parts(model: nn.Module) -> Iterator[tuple[str, Part]]:
    """Every matrix of every site as `<site>/<matrix>`, of our attention and of attached sites."""
    for name, site in sites(model).items():
        for matrix, weight in matrices(site).items():
            yield f"{name}/{matrix}", whole(weight, site.heads, by_rows=matrix == "W_o")
    for name, foreign in attached(model).items():
        yield from ((f"{name}/{matrix}", part) for matrix, part in {**foreign.parts, **foreign.adapters}.items())


def matrices(site: Attention) -> dict[str, nn.Parameter]:
    """The named matrices a site owns, in the order of MATRICES."""
    own = dict(site.named_parameters(recurse=False))
    return {name: own[name] for name in MATRICES if name in own}


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters the optimizer updates. Frozen matrices are not among them, but get gradients, whose norms are
    recorded."""
    frozen = {
        id(parameter)
        for site in sites(model).values()
        for name, parameter in matrices(site).items()
        if name in site.spec.frozen
    }
    own = model.named_parameters()
    return {name: parameter for name, parameter in own if parameter.requires_grad and id(parameter) not in frozen}


def initialize_weights(model: nn.Module, seed: int) -> None:
    """Draw every parameter from its own generator, seeded by (seed, name): two variants of a model start with equal
    weights wherever both have them."""
    for reset, name in _resets(model):
        torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        reset()


def _resets(model: nn.Module) -> Iterator[tuple[Callable[[], None], str]]:
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            for key, parameter in module.named_parameters(recurse=False):
                yield partial(module.initialize, parameter), f"{name}.{key}"
        elif callable(reset := getattr(module, "reset_parameters", None)):
            yield reset, name
