"""Prompted segmentation for the gradient chain: what the loss reads is the masks of the matched queries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from experiments.spec import SegmentLoss
from workers.trainer.data.samples import Batch
from workers.trainer.losses import segment_losses
from workers.trainer.nets.segmenter import Found


@dataclass(frozen=True)
class Kept(Found):
    """Keeps the mask logits that a loss asks for."""

    asked: list[Tensor] = field(default_factory=list)

    def masks(self, rows: Tensor, queries: Tensor) -> Tensor:
        found = super().masks(rows, queries)
        self.asked.append(found)
        return found


def passed(model: nn.Module, batch: Batch, loss: SegmentLoss) -> tuple[Tensor, Tensor]:
    """The loss, and the matched queries' mask logits [n, H, W]: the notes' pred_mask."""
    batch = replace(batch, images=batch.images.to(next(model.parameters()).dtype))
    found: Found = model(batch.images, batch.tokens, batch.said)
    kept = Kept(**vars(found))
    terms, _ = segment_losses(kept, batch, loss)
    return terms["total"], kept.asked[-1]
