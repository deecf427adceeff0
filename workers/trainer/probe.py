"""Explicit attention on a fixed probe batch: the map is recomputed in fp32, reduced on the device and dropped."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from workers.trainer.adapt import attached
from workers.trainer.adapt.watch import watched
from workers.trainer.attention import Tap, attention_weights
from workers.trainer.chain import chain, chain_names, is_chained
from workers.trainer.sites import sites
from workers.trainer.taps import taps
from workers.trainer.task import Task

_NOTHING = torch.tensor(math.nan)


def probe_names(task: Task) -> list[str]:
    names = [
        f"attn/{measure}/{site}"
        for measure in ("entropy", "logit_max")
        for site in (*sites(task.model), *attached(task.model))
    ]
    return [*names, *task.measures, *(chain_names(task.model) if is_chained(task) else ())]


def probe(task: Task) -> dict[str, float]:
    """The probe series of this moment. Costs one forward pass of the probe batch and its maps, and one forward and
    backward pass of the chain's batch; leaves gradients and random state as they are, and copies once to the host."""
    with undisturbed():
        values = {**_seen(task), **(chain(task, task.model) if is_chained(task) else {})}
    device = next(task.model.parameters()).device
    numbers = torch.stack([value.detach().to(device, torch.float32) for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


@torch.no_grad()
def _seen(task: Task) -> dict[str, Tensor]:
    with taps(task.model) as seen, watched(task.model) as foreign:
        found = task.probe(seen)
    values = {f"attn/entropy/{site}": entropy(tap) for site, tap in seen.items()}
    values |= {f"attn/logit_max/{site}": logit_max(tap) for site, tap in seen.items()}
    for site in attached(task.model):  # a site that did not run has no map
        own = foreign.get(site)
        values[f"attn/entropy/{site}"] = own.entropy if own else _NOTHING
        values[f"attn/logit_max/{site}"] = own.logit_max if own else _NOTHING
    return {**values, **found}


def undisturbed() -> AbstractContextManager[None]:
    """Random state comes out as it went in."""
    return torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_initialized() else [])


def weights_of(tap: Tap) -> Tensor:
    """The attention map of a call, in fp32: BHTS."""
    return attention_weights(tap.q_BHTD.float(), tap.k_BHSD.float(), tap.mask, tap.scale)


def entropy(tap: Tap) -> Tensor:
    """Mean over batch, heads and askers of −Σ A ln A ÷ ln(number of allowed keys): 1 is uniform, 0 is one key."""
    weights = weights_of(tap)
    nats = torch.special.entr(weights).sum(-1)  # BHT
    allowed = torch.full_like(nats, tap.k_BHSD.shape[-2])
    if tap.mask is not None:
        allowed = tap.mask.sum(-1).expand_as(nats).float()
    return (nats / allowed.clamp(min=2).log()).mean()


def logit_max(tap: Tap) -> Tensor:
    """The largest scaled dot product of a query and a key that it may ask."""
    logits = tap.q_BHTD.float() @ tap.k_BHSD.float().transpose(-2, -1) * tap.scale
    return logits.max() if tap.mask is None else logits.masked_fill(~tap.mask, -math.inf).max()
