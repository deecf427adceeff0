"""What a probe of prompted segmentation says about objects, beside what every site says of itself.

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
    asking = [f"decoder.{layer}.image" for layer in range(spec.decoder_layers)]
    looking = [f"encoder.{layer}.self" for layer in range(spec.encoder_layers)]
    pairs = [("object_mass", asking), ("pointing", asking), ("same_object", looking)]
    return tuple(f"attn/{measure}/{site}" for measure, sites in pairs for site in sites)


def values(spec: SegmenterModel, seen: Mapping[str, Tap], batch: Batch, matches: Matches) -> dict[str, Tensor]:
    """Of matched queries: attention on their object and whether it gets most of it, mean over heads and pairs. Of the
    patches of what is prompted for: attention that stays on it, mean over heads. How much of each patch an object
    covers weighs its attention."""
    cover = torch.nn.functional.avg_pool2d(batch.masks.float(), spec.patch).flatten(2)  # B, G, N
    wanted = cover[matches.rows, matches.targets].unsqueeze(1)  # n, 1, N
    asking = matches.queries + 1  # token 0 is the presence token
    found: dict[str, Tensor] = {}
    for layer in range(spec.decoder_layers):
        site = f"decoder.{layer}.image"
        weights = weights_of(seen[site])[matches.rows, :, asking]  # n, H, N
        found[f"attn/object_mass/{site}"] = object_mass(weights, wanted).mean()
        found[f"attn/pointing/{site}"] = pointing(weights, wanted).mean()
    for layer in range(spec.encoder_layers):
        site = f"encoder.{layer}.self"
        found[f"attn/same_object/{site}"] = same_object(weights_of(seen[site]), cover.sum(1).clamp(max=1)).mean()
    return found
