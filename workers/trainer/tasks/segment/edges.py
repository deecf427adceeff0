"""Edges of things: what they attend to, and what they know.

An edge is a patch that is at least half covered by its thing and has a neighbour above, below or beside it that is not.
Shapes: B samples, G targets, H heads, N patches in `grid` rows and columns, E edges, R rings of equal distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.trainer.data.images.scenes import ROAD
from workers.trainer.recording.probe import weights_of
from workers.trainer.tasks.segment.attention_rows import ForwardPass, Head

NEAR = 1  # steps in rows or columns (the larger counts) up to which patches are neighbours


@dataclass(frozen=True)
class Edges:
    """The edge patches of what the prompts name; sky and road have none."""

    rows: Tensor  # E: the sample
    targets: Tensor  # E
    patches: Tensor  # E
    cover: Tensor  # E, N: how much of each patch the edge's own thing covers


def edges(forward: ForwardPass, patch: int) -> Edges:
    cover = forward.cover(patch)  # B, G, N
    grid = round(cover.shape[-1] ** 0.5)
    own = (cover >= 0.5).unflatten(-1, (grid, grid))
    padded = F.pad(own, (1, 1, 1, 1), value=False)
    around = padded[..., :-2, 1:-1] & padded[..., 2:, 1:-1] & padded[..., 1:-1, :-2] & padded[..., 1:-1, 2:]
    things = torch.zeros(cover.shape[:2], dtype=torch.bool, device=cover.device)
    for row, sample in enumerate(forward.samples):
        drawn = sample.packed is None  # only scenes have sky and road
        things[row, : len(sample.hits)] = torch.tensor([hit < ROAD or not drawn for hit in sample.hits])
    rows, targets, patches = ((own & ~around).flatten(2) & things.unsqueeze(-1)).nonzero(as_tuple=True)
    return Edges(rows, targets, patches, cover[rows, targets])


def same_object(forward: ForwardPass, patch: int) -> dict[Head, tuple[Tensor, Tensor]]:
    """Per head of the encoder's self-attention: the share of an edge's attention beyond its neighbours that falls on
    its own thing, and the share if attention were uniform over each ring of patches at one distance. Both E."""
    edge = edges(forward, patch)
    steps = _steps(round(edge.cover.shape[-1] ** 0.5), edge.cover.device)
    rings = F.one_hot(steps).float()  # N, N, R
    even = torch.einsum("en,enr->er", edge.cover, rings[edge.patches]) / rings[edge.patches].sum(1).clamp(min=1)
    measured: dict[Head, tuple[Tensor, Tensor]] = {}
    for site, tap in forward.taps.items():
        if not (site.startswith("encoder.") and site.endswith(".self")):
            continue
        far = weights_of(tap)[edge.rows, :, edge.patches] * (steps[edge.patches] > NEAR).unsqueeze(1)  # E, H, N
        whole = far.sum(-1).clamp(min=1e-12)
        mass = (far * edge.cover.unsqueeze(1)).sum(-1) / whole
        chance = (torch.einsum("ehn,enr->ehr", far, rings[edge.patches]) * even.unsqueeze(1)).sum(-1) / whole
        measured |= {(site, head): (mass[:, head], chance[:, head]) for head in range(mass.shape[1])}
    return measured


def _steps(grid: int, device: torch.device) -> Tensor:
    """N, N: the larger of the steps in rows and in columns between two patches."""
    positions = torch.cartesian_prod(torch.arange(grid, device=device), torch.arange(grid, device=device))
    return (positions[:, None] - positions[None]).abs().amax(-1)
