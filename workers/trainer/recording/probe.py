"""Explicit attention on a fixed probe batch: the map is recomputed in fp32, reduced on the device and dropped."""

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
    """The probe series of this moment. Costs one forward pass of the probe batch and its maps, and a forward and
    backward pass of the chain's batch in two precisions, in evaluation mode; leaves gradients, modes and random state
    as they are, and copies once to the host."""
    with evaluating(task.model):
        values = {**_seen(task, per_head), **(followed(task) if is_chained(task) else {})}
    device = next(task.model.parameters()).device
    numbers = torch.stack([value.detach().to(device, torch.float32) for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


@torch.no_grad()
def _seen(task: Task, per_head: bool) -> dict[str, Tensor]:
    with taps(task.model) as seen, watched(task.model) as foreign:
        found = task.probe(seen)
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
    return {**values, **found}


def weights_of(tap: Tap) -> Tensor:
    """The attention map of a call, in fp32: BHTS."""
    return attention_weights(tap.q_BHTD.float(), tap.k_BHSD.float(), tap.mask, tap.scale)
