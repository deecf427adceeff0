"""Attention on objects, which a probe of prompted segmentation adds to the measures of every site.

Shapes: B samples, H heads, N patches, G targets, n matched pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from experiments.spec import SegmenterModel
from workers.trainer.attention import Tap
from workers.trainer.attention.instruments import object_mass, pointing, same_object
from workers.trainer.data.images.samples import Batch
from workers.trainer.recording.probe import weights_of
from workers.trainer.tasks.segment.matcher import Matches


def names(spec: SegmenterModel) -> tuple[str, ...]:
    decoder = [f"decoder.{layer}.image" for layer in range(spec.decoder_layers)]
    encoder = [f"encoder.{layer}.self" for layer in range(spec.encoder_layers)]
    pairs = [("object_mass", decoder), ("pointing", decoder), ("same_object", encoder)]
    return tuple(f"attn/{measure}/{site}" for measure, sites in pairs for site in sites)


def values(spec: SegmenterModel, seen: Mapping[str, Tap], batch: Batch, matches: Matches) -> dict[str, Tensor]:
    """Of matched queries: attention on their object, and whether it has the maximum, mean over heads and pairs. Of
    patches of the targets: attention that stays on them, mean over heads. Attention is weighted by how much of a patch
    the object covers."""
    cover = torch.nn.functional.avg_pool2d(batch.masks.float(), spec.patch).flatten(2)  # B, G, N
    wanted = cover[matches.rows, matches.targets].unsqueeze(1)  # n, 1, N
    positions = matches.queries + 1  # token 0 is the presence token
    measures: dict[str, Tensor] = {}
    for layer in range(spec.decoder_layers):
        site = f"decoder.{layer}.image"
        weights = weights_of(seen[site])[matches.rows, :, positions]  # n, H, N
        measures[f"attn/object_mass/{site}"] = object_mass(weights, wanted).mean()
        measures[f"attn/pointing/{site}"] = pointing(weights, wanted).mean()
    for layer in range(spec.encoder_layers):
        site = f"encoder.{layer}.self"
        measures[f"attn/same_object/{site}"] = same_object(weights_of(seen[site]), cover.sum(1).clamp(max=1)).mean()
    return measures
