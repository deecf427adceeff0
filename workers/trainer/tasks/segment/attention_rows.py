"""A trained segmenter looked at sample by sample: attention by site and head, chosen on one split, scored on another.

Shapes: B samples, H heads, T askers, N patches, G targets, n matched pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import SegmentLoss
from workers.trainer.attention import Tap
from workers.trainer.attention.taps import taps
from workers.trainer.data.images.samples import Batch, Sample, Samples, boxes_of, collate
from workers.trainer.nets.segmenter import Found, Segmenter
from workers.trainer.recording.probe import weights_of
from workers.trainer.tasks.segment.losses import segment_losses
from workers.trainer.tasks.segment.matcher import Matches

AT_ONCE = 64  # samples
Head = tuple[str, int]  # a site and one of its heads


@dataclass(frozen=True)
class Look:
    """One forward pass and what every site saw in it."""

    samples: Sequence[Sample]
    batch: Batch
    found: Found
    matches: Matches
    seen: Mapping[str, Tap]

    def cover(self, patch: int) -> Tensor:
        """How much of each patch each target covers: B, G, N."""
        return F.avg_pool2d(self.batch.masks.float(), patch).flatten(2)


@dataclass(frozen=True)
class Viewer:
    """Runs models over samples."""

    loss: SegmentLoss
    patch: int
    device: torch.device

    @torch.no_grad()
    def looks(self, model: Segmenter, samples: Sequence[Sample], prompts: Sequence[str] = ()) -> Iterator[Look]:
        """`prompts`, where given, are asked in place of the samples' own; what is wanted stays."""
        for start in range(0, len(samples), AT_ONCE):
            chosen = samples[start : start + AT_ONCE]
            batch = collate(chosen, [boxes_of(sample.masks) for sample in chosen], prompts[start : start + AT_ONCE])
            batch = batch.to(self.device)
            with taps(model) as seen:
                found = model(batch.images, batch.tokens, batch.said)
            _, matches = segment_losses(found, batch, self.loss)
            yield Look(chosen, batch, found, matches, seen)


def first(samples: Samples, count: int) -> list[Sample]:
    return [samples[index] for index in range(min(count, samples.size))]


def asked_apart(samples: Sequence[Sample]) -> list[Sample]:
    """Those whose prompt tells two things of one class apart; where there is none, all that ask for what is there."""
    return [sample for sample in samples if sample.other] or [sample for sample in samples if sample.hits]


def text_maps(look: Look) -> dict[str, Tensor]:
    """Where the prompt's words look, mean over its words, by site of kind text_to_image: B, H, N."""
    said = look.batch.said[:, None, :, None]
    return {
        site: (weights_of(tap) * said).sum(2) / said.sum(2)
        for site, tap in look.seen.items()
        if site.endswith(".text_to_image")
    }


def word_looks(look: Look, patch: int) -> dict[Head, tuple[Tensor, Tensor]]:
    """Of each head: attention mass of the prompt's words on what is meant, Σ_j A_j·cover_j, and whether the patch
    they look at most is at least half covered by it. Both B."""
    wanted = look.cover(patch).sum(1).clamp(max=1)  # B, N
    found: dict[Head, tuple[Tensor, Tensor]] = {}
    for site, maps in text_maps(look).items():
        mass = (maps * wanted[:, None]).sum(-1)
        hits = wanted.gather(1, maps.argmax(-1)) >= 0.5
        found |= {(site, head): (mass[:, head], hits[:, head].float()) for head in range(maps.shape[1])}
    return found


def query_looks(look: Look, patch: int) -> dict[Head, Tensor]:
    """Of each head of the decoder's image sites: attention mass of the matched queries on their targets: n."""
    wanted = look.cover(patch)[look.matches.rows, look.matches.targets].unsqueeze(1)  # n, 1, N
    asking = look.matches.queries + 1  # token 0 is the presence token
    found: dict[Head, Tensor] = {}
    for site, tap in look.seen.items():
        if site.endswith(".image"):
            mass = (weights_of(tap)[look.matches.rows, :, asking] * wanted).sum(-1)  # n, H
            found |= {(site, head): mass[:, head] for head in range(mass.shape[1])}
    return found
