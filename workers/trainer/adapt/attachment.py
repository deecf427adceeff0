"""Find the attention sites of a model of another library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import nn

from workers.protocol import SiteInfo
from workers.trainer.adapt.probing.verifying import verified

from .adapters import SharedByAdapters, adapted, adapters, doubles
from .compiled import as_written, modules_of
from .layouts import UnknownLayout, output_of, parts_of
from .parts import Part

CROSS = re.compile(r"cross|encoder_attn|encdec|_to_|multihead_attn", re.IGNORECASE)
ALONE = "attention"  # the site's name where the model itself is the attention module
KEPT = "_attn_attached"  # kept on the model, so that a copy of the model has its own sites


@dataclass(frozen=True)
class ForeignSite:
    """One attention module. `parts` has W_q, W_k, W_v, and W_o if there is one; keys and values may have fewer heads
    than queries (grouped-query attention)."""

    name: str
    kind: Literal["self", "cross"]
    module: nn.Module
    parts: Mapping[str, Part]
    adapters: Mapping[str, Part] = field(default_factory=dict)  # the matrices of adapters, such as W_q/lora_A

    @property
    def heads(self) -> int:
        return self.parts["W_q"].heads

    @property
    def kv_heads(self) -> int:
        return self.parts["W_k"].heads

    def info(self) -> SiteInfo:
        return SiteInfo(
            name=self.name, kind=self.kind, heads=self.heads, kv_heads=self.kv_heads, matrices=list(self.parts)
        )


@dataclass(frozen=True)
class Attached:
    """What `attach` found. `skipped`: why a module that looks like attention, or computes it, is not a site; also a
    site's further attentions, as `attn (q2, k2, v2)`, and a W_o without heads or series, as `attn/W_o`. `unchecked`:
    why a site was recognised by names alone, without a forward pass."""

    model: nn.Module
    sites: Mapping[str, ForeignSite]
    skipped: Mapping[str, str]
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @property
    def frozen(self) -> Mapping[str, list[str]]:
        """The matrices of each site that do not train and that nothing adapts: they have no gradients, so their norms
        are 0 although losses may depend on them."""
        frozen = {
            name: [
                matrix
                for matrix, part in {**site.parts, **site.adapters}.items()
                if part.adapter is None and not part.parameter.requires_grad
            ]
            for name, site in self.sites.items()
        }
        return {name: matrices for name, matrices in frozen.items() if matrices}


def attach(model: nn.Module, run: Callable[[], object] | None = None) -> Attached:
    """Find and name every attention module of a Hugging Face, timm or torch.nn model, for norms and probes. What
    names suggest is checked against what the model computes on one batch: `run` calls the model once, as training
    does; without it a batch is generated. Raises ValueError where no attention is recognised."""
    model = as_written(model)
    modules = modules_of(model)
    claims, skipped = _claimed(modules)
    checked = verified(model, claims, run, partial(_output, modules))
    parts = {name: each for name, each in {**claims, **checked.parts}.items() if name not in checked.left_out}
    sites, shared = _sites(modules, parts)
    skipped |= {**checked.left_out, **shared}
    if not sites:
        why = "".join(f"; {name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"{type(model).__name__} has no attention that is recognised{why}")
    skipped = {name: why for name, why in skipped.items() if (name or ALONE) not in sites}
    result = Attached(model, sites, skipped, {name or ALONE: why for name, why in checked.unchecked.items()})
    model.__dict__[KEPT] = result
    return result


def _sites(
    modules: Mapping[str, nn.Module], parts: Mapping[str, Mapping[str, Part]]
) -> tuple[dict[str, ForeignSite], dict[str, str]]:
    """The modules with these parts as sites, and why some are none."""
    sites, skipped = {}, {}
    for name, module in ((name, modules[name]) for name in modules if name in parts):
        try:
            effective, own = adapted(dict(parts[name]), adapters(module, modules.get(_parent(name))))
            sites[name or ALONE] = ForeignSite(name or ALONE, _kind(name, module), module, effective, own)
        except SharedByAdapters as error:
            skipped[name] = str(error)
    return sites, skipped


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _output(modules: Mapping[str, nn.Module], name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    return output_of(modules[name], modules.get(_parent(name)), parts)


def _claimed(modules: Mapping[str, nn.Module]) -> tuple[dict[str, dict[str, Part]], dict[str, str]]:
    """The matrices of each module as its names suggest, and why some have none."""
    claims, skipped, duplicates = {}, {}, doubles(modules)
    for name, module in modules.items():
        if getattr(module, "names_its_matrices", False) or name in duplicates:
            continue
        try:
            if (parts := parts_of(module, modules.get(_parent(name)))) is not None:
                claims[name] = parts
        except UnknownLayout as error:
            skipped[name] = str(error)
    return claims, skipped


def attachment(model: nn.Module) -> Attached | None:
    """The result of the last `attach` of this model; None where it was not called."""
    result: Attached | None = as_written(model).__dict__.get(KEPT)
    return result


def attached(model: nn.Module) -> Mapping[str, ForeignSite]:
    """The sites that `attach` found in this model; empty where it was not called."""
    result = attachment(model)
    return {} if result is None else result.sites


def adapted_since(model: nn.Module) -> bool:
    """Whether a layer got an adapter after `attach`, so that its sites are out of date."""
    modules = modules_of(as_written(model))
    return any(
        part.adapter is None and id(part.parameter) in adapters(site.module, modules.get(_parent(name)))
        for name, site in attached(model).items()
        for part in site.parts.values()
    )


def _kind(name: str, module: nn.Module) -> Literal["self", "cross"]:
    """Cross where the name, a flag or the width of the keys says so."""
    if getattr(module, "is_cross_attention", False) or CROSS.search(name.rpartition(".")[2]):
        return "cross"
    if re.search(r"cross_?att", _parent(name).rpartition(".")[2], re.IGNORECASE):
        return "cross"
    width = getattr(module, "kdim", None)
    return "cross" if width is not None and width != getattr(module, "embed_dim", width) else "self"
