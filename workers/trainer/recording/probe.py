"""Attention on a fixed probe batch: maps are recomputed in fp32, reduced on the device and dropped."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workers.trainer.adapt import attached
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.adapt.watch import watched
from workers.trainer.attention import Tap, attention_weights
from workers.trainer.attention.gradient_chain.chain import chain_names, followed, is_chained
from workers.trainer.attention.hooks import taps
from workers.trainer.attention.instruments import series_of, values_of
from workers.trainer.attention.sites import sites
from workers.trainer.task import Task

_NOTHING = torch.tensor(math.nan)


def probe_names(task: Task, per_head: bool = False) -> list[str]:
    own = [series for name, site in sites(task.model).items() for series in series_of(name, site, per_head)]
    foreign = [f"attn/{measure}/{site}" for site in attached(task.model) for measure in ("entropy", "logit_max")]
    return [*own, *foreign, *task.measures, *(chain_names(task) if is_chained(task) else ())]


def probe(task: Task, per_head: bool = False) -> dict[str, float]:
    """The probe series at this step. Costs a forward pass of the probe batch with its maps, a forward and backward pass
    of the chain's batch in two precisions, and one copy to the host; gradients, modes and random state stay."""
    with evaluating(task.model):
        values = {**_attention(task, per_head), **(followed(task) if is_chained(task) else {})}
    device = next(task.model.parameters()).device
    numbers = torch.stack([value.detach().to(device, torch.float32) for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


@torch.no_grad()
def _attention(task: Task, per_head: bool) -> dict[str, Tensor]:
    with taps(task.model) as seen, watched(task.model) as foreign:
        measures = task.probe(seen)
    values: dict[str, Tensor] = {}
    for name, site in sites(task.model).items():
        if name in seen:
            values |= values_of(name, site, seen[name], per_head)
        else:  # a site that did not run has no map
            values |= dict.fromkeys(series_of(name, site, per_head), _NOTHING)
    for name in attached(task.model):
        own = foreign.get(name)
        values[f"attn/entropy/{name}"] = own.entropy if own else _NOTHING
        values[f"attn/logit_max/{name}"] = own.logit_max if own else _NOTHING
    return {**values, **measures}


def weights_of(tap: Tap) -> Tensor:
    """The attention map of a call, in fp32: BHTS."""
    return attention_weights(tap.q_BHTD.float(), tap.k_BHSD.float(), tap.mask, tap.scale)
