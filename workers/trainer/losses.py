"""The loss terms of prompted segmentation. Each is a mean: its scale depends on no batch size or number of layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import SegmentLoss
from workers.trainer.boxes import iou_and_giou
from workers.trainer.data.samples import Batch
from workers.trainer.matcher import Matches, match
from workers.trainer.nets.segmenter import Found


def parts(spec: SegmentLoss) -> tuple[str, ...]:
    """Names of the loss terms."""
    mask = ("mask_l2",) if spec.mask_form == "l2" else ("mask_bce", "mask_dice")
    return "score", "box_l1", "box_giou", *mask, "presence"


def segment_losses(found: Found, batch: Batch, spec: SegmentLoss) -> tuple[dict[str, Tensor], Matches]:
    """Every term, unweighted, and `total`, their weighted sum; besides, the matches of the last layer."""
    first = 0 if spec.aux else len(found.scores) - 1
    scores, boxes = found.scores[first:], found.boxes[first:]
    pairs = match(scores, boxes, batch.boxes, batch.valid)
    last = pairs.last(len(scores))
    box_l1, box_giou = box_losses(
        boxes[pairs.layers, pairs.rows, pairs.queries], batch.boxes[pairs.rows, pairs.targets]
    )
    masks = found.masks(last.rows, last.queries), batch.masks[last.rows, last.targets].float()
    shape = (squared_error(*masks),) if spec.mask_form == "l2" else mask_losses(*masks)
    score, presence = score_loss(scores, pairs, batch.present), presence_loss(found.presence[first:], batch.present)
    terms = dict(zip(parts(spec), (score, box_l1, box_giou, *shape, presence), strict=True))
    weighted = [getattr(spec, name) * value for name, value in terms.items()]
    return {**terms, "total": torch.stack(weighted).sum()}, last


def score_loss(scores: Tensor, pairs: Matches, present: Tensor) -> Tensor:
    """Is the query a match? Over images where the prompt names something: elsewhere presence answers."""
    wanted = torch.zeros_like(scores)
    wanted[pairs.layers, pairs.rows, pairs.queries] = 1.0
    each = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    asked = present[:, None].expand_as(scores[0]).float()
    return (each * asked).sum() / (asked.sum() * len(scores)).clamp(min=1)


def box_losses(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs of the L1 distance and of 1 − GIoU."""
    _, giou = iou_and_giou(found, wanted)
    count = max(1, len(found))
    return (found - wanted).abs().sum() / count, (1 - giou).sum() / count


def mask_losses(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs [n, H, W] of the pixels' cross-entropy and of 1 − dice."""
    count = max(1, len(logits))
    bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2)).sum() / count
    shares = logits.sigmoid()
    overlap, sizes = (shares * wanted).sum((1, 2)), shares.sum((1, 2)) + wanted.sum((1, 2))
    return bce, (1 - (2 * overlap + 1) / (sizes + 1)).sum() / count


def squared_error(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over matched pairs and pixels [n, H, W] of (σ(logit) − truth)²: the loss that the notes write down."""
    return (logits.sigmoid() - wanted).square().mean((1, 2)).sum() / max(1, len(logits))


def presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Is anything in the image what the prompt names? Every layer answers."""
    return F.binary_cross_entropy_with_logits(logits, present.float().expand_as(logits))
