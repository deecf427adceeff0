"""The attention sites of a model that is not ours."""

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
ALONE = "attention"  # the site's name where the model is nothing but attention
KEPT = "_attn_attached"  # the model itself remembers: a copy of it has the copy's sites


@dataclass(frozen=True)
class ForeignSite:
    """One attention module. `parts` has W_q, W_k, W_v, and W_o where it was found; keys and values may have fewer
    heads than queries (grouped)."""

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
    """What `attach` found. `skipped` says of each module that looks like attention, or computes some, and is no site,
    why; also of a site's further attentions, as `attn (q2, k2, v2)`, and of a W_o that is none or has no heads, as
    `attn/W_o`. `unchecked` says of each site that no batch could be sent through, so that only its names speak for it,
    why."""

    model: nn.Module
    sites: Mapping[str, ForeignSite]
    skipped: Mapping[str, str]
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @property
    def frozen(self) -> Mapping[str, list[str]]:
        """The matrices of each site that do not train now, and that nothing adapts: no gradient is kept for them, so
        that their norms read 0 although losses may depend on them."""
        still = {
            name: [
                matrix
                for matrix, part in {**site.parts, **site.adapters}.items()
                if part.adapter is None and not part.parameter.requires_grad
            ]
            for name, site in self.sites.items()
        }
        return {name: matrices for name, matrices in still.items() if matrices}


def attach(model: nn.Module, run: Callable[[], object] | None = None) -> Attached:
    """Find and name every attention module of a Hugging Face, timm or torch.nn model. From then on our gauges and
    probes see them. What names say is held against what the model computes on one batch: `run` calls it once, as
    training will; without it a batch is made up. Raises ValueError where there is no attention that can be read."""
    model = as_written(model)
    modules = modules_of(model)
    claims, skipped = _claimed(modules)
    seen = verified(model, claims, run, partial(_output, modules))
    skipped |= seen.left_out
    sites = {}
    for name, module in modules.items():
        parts = seen.parts.get(name) or claims.get(name)
        if parts is None or name in seen.left_out:
            continue
        called = name or ALONE
        try:
            whole, own = adapted(dict(parts), adapters(module, modules.get(name.rpartition(".")[0])))
        except SharedByAdapters as error:
            skipped[name] = str(error)
            continue
        sites[called] = ForeignSite(called, _kind(name, module), module, whole, own)
    if not sites:
        why = "".join(f"; {name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"{type(model).__name__} has no attention that is known here{why}")
    skipped = {name: why for name, why in skipped.items() if (name or ALONE) not in sites}
    found = Attached(model, sites, skipped, {name or ALONE: why for name, why in seen.unchecked.items()})
    model.__dict__[KEPT] = found
    return found


def _output(modules: Mapping[str, nn.Module], name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    return output_of(modules[name], modules.get(name.rpartition(".")[0]), parts)


def _claimed(modules: Mapping[str, nn.Module]) -> tuple[dict[str, dict[str, Part]], dict[str, str]]:
    """The matrices of each module by its names, and why some cannot be told apart."""
    claims, skipped, apart = {}, {}, doubles(modules)
    for name, module in modules.items():
        if getattr(module, "names_its_matrices", False) or name in apart:
            continue
        try:
            parts = parts_of(module, modules.get(name.rpartition(".")[0]))
        except UnknownLayout as error:
            skipped[name] = str(error)
            continue
        if parts is not None:
            claims[name] = parts
    return claims, skipped


def attachment(model: nn.Module) -> Attached | None:
    """What the last `attach` of this model found; None where it was not called."""
    found: Attached | None = as_written(model).__dict__.get(KEPT)
    return found


def attached(model: nn.Module) -> Mapping[str, ForeignSite]:
    """The sites that `attach` found in this model; none where it was not called."""
    found = attachment(model)
    return {} if found is None else found.sites


def adapted_since(model: nn.Module) -> bool:
    """Whether a layer has got an adapter after `attach`: what was found then is no longer what is applied."""
    modules = modules_of(as_written(model))
    return any(
        part.adapter is None and id(part.parameter) in adapters(site.module, modules.get(name.rpartition(".")[0]))
        for name, site in attached(model).items()
        for part in site.parts.values()
    )


def _kind(name: str, module: nn.Module) -> Literal["self", "cross"]:
    """Cross where the name, a flag or the widths of keys say so."""
    if getattr(module, "is_cross_attention", False) or CROSS.search(name.rpartition(".")[2]):
        return "cross"
    parent = name.rpartition(".")[0]
    if re.search(r"cross_?att", parent.rpartition(".")[2], re.IGNORECASE):
        return "cross"
    width = getattr(module, "kdim", None)
    return "cross" if width is not None and width != getattr(module, "embed_dim", width) else "self"
