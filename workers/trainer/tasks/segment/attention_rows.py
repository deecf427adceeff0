"""Attention of a trained segmenter, sample by sample, by site and head.

Shapes: B samples, H heads, T query positions, N patches, G targets, n matched pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import SegmentLoss
from workers.trainer.attention import Tap
from workers.trainer.attention.hooks import taps
from workers.trainer.data.images.samples import Batch, Sample, boxes_of, collate
from workers.trainer.nets.segmenter import Predictions, Segmenter
from workers.trainer.recording.probe import weights_of
from workers.trainer.tasks.segment.losses import segment_losses
from workers.trainer.tasks.segment.matcher import Matches

AT_ONCE = 64  # samples
Head = tuple[str, int]  # a site and one of its heads


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass, and the call of every site in it."""

    samples: Sequence[Sample]
    batch: Batch
    predictions: Predictions
    matches: Matches
    taps: Mapping[str, Tap]

    def cover(self, patch: int) -> Tensor:
        """How much of each patch each target covers: B, G, N."""
        return F.avg_pool2d(self.batch.masks.float(), patch).flatten(2)


@dataclass(frozen=True)
class Evaluator:
    """Runs models over samples."""

    loss: SegmentLoss
    patch: int
    device: torch.device

    @torch.no_grad()
    def run(self, model: Segmenter, samples: Sequence[Sample], prompts: Sequence[str] = ()) -> Iterator[ForwardPass]:
        """`prompts`, if given, replace the samples' own; the targets stay."""
        for start in range(0, len(samples), AT_ONCE):
            chosen = samples[start : start + AT_ONCE]
            batch = collate(chosen, [boxes_of(sample.masks) for sample in chosen], prompts[start : start + AT_ONCE])
            batch = batch.to(self.device)
            with taps(model) as calls:
                predictions = model(*batch.inputs)
            _, matches = segment_losses(predictions, batch, self.loss)
            yield ForwardPass(chosen, batch, predictions, matches, calls)


def distinguished(samples: Sequence[Sample]) -> list[Sample]:
    """Samples whose prompt distinguishes two things of one class; if there are none, all with a target."""
    return [sample for sample in samples if sample.other] or [sample for sample in samples if sample.hits]


def text_maps(forward: ForwardPass) -> dict[str, Tensor]:
    """Attention of the prompt's words, averaged over them, by site of kind text_to_image: B, H, N."""
    token_mask = forward.batch.token_mask[:, None, :, None]
    return {
        site: (weights_of(tap) * token_mask).sum(2) / token_mask.sum(2)
        for site, tap in forward.taps.items()
        if site.endswith(".text_to_image")
    }


def word_attention(forward: ForwardPass, patch: int) -> dict[Head, tuple[Tensor, Tensor]]:
    """Per head: attention mass of the prompt's words on the targets, Σ_j A_j·cover_j, and whether the patch with
    the most attention is at least half covered by them. Both B."""
    wanted = forward.cover(patch).sum(1).clamp(max=1)  # B, N
    by_head: dict[Head, tuple[Tensor, Tensor]] = {}
    for site, maps in text_maps(forward).items():
        mass = (maps * wanted[:, None]).sum(-1)
        hits = wanted.gather(1, maps.argmax(-1)) >= 0.5
        by_head |= {(site, head): (mass[:, head], hits[:, head].float()) for head in range(maps.shape[1])}
    return by_head


def query_attention(forward: ForwardPass, patch: int) -> dict[Head, Tensor]:
    """Per head of the decoder's image sites: attention mass of the matched queries on their targets: n."""
    wanted = forward.cover(patch)[forward.matches.rows, forward.matches.targets].unsqueeze(1)  # n, 1, N
    positions = forward.matches.queries + 1  # token 0 is the presence token
    by_head: dict[Head, Tensor] = {}
    for site, tap in forward.taps.items():
        if site.endswith(".image"):
            mass = (weights_of(tap)[forward.matches.rows, :, positions] * wanted).sum(-1)  # n, H
            by_head |= {(site, head): mass[:, head] for head in range(mass.shape[1])}
    return by_head
