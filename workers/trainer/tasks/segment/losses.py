"""The loss terms of prompted segmentation. Each is a mean: its scale depends on no batch size or number of layers.

If a step has several micro-batches, a term of one of them is its part of the mean over the step: its own sum divided
by the step's `whole` number of what the term counts. The parts add up to the term of one large batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import SegmentLoss
from workers.trainer.data.images.samples import Batch
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.boxes import iou_and_giou
from workers.trainer.tasks.segment.matcher import Matches, match


def parts(spec: SegmentLoss) -> tuple[str, ...]:
    """Names of the loss terms."""
    mask = ("mask_l2",) if spec.mask_form == "l2" else ("mask_bce", "mask_dice")
    return "score", "box_l1", "box_giou", *mask, "presence"


@dataclass(frozen=True)
class Whole:
    """What the terms of a step are divided by."""

    pairs: int  # matched in one layer
    scores: int  # of one layer, in images where the prompt names something
    images: int

    @classmethod
    def of(cls, targets: Sequence[int], queries: int) -> Whole:
        """`targets`: how many the prompt names, in each image of the step. At most `queries` of them are matched."""
        pairs, present = sum(min(count, queries) for count in targets), sum(count > 0 for count in targets)
        return cls(pairs, present * queries, len(targets))


def segment_losses(
    predictions: Predictions, batch: Batch, spec: SegmentLoss, step_targets: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], Matches]:
    """Every term, unweighted, and `total`, their weighted sum; and the matches of the last layer. `step_targets`
    is given if the batch is a part of a step or an evaluation: the number of targets of each of its images."""
    first = 0 if spec.aux else len(predictions.scores) - 1
    outputs = predictions.scores, predictions.boxes, predictions.presence
    scores, boxes, presences = (_wide(output[first:]) for output in outputs)
    layers, whole = len(scores), None if step_targets is None else Whole.of(step_targets, scores.shape[-1])
    pairs = match(scores, boxes, batch.boxes, batch.valid)
    last = pairs.last(layers)
    chosen = boxes[pairs.layers, pairs.rows, pairs.queries], batch.boxes[pairs.rows, pairs.targets]
    box_l1, box_giou = box_losses(*chosen, whole.pairs * layers if whole else None)
    logits = _wide(predictions.masks(last.rows, last.queries))
    masks = logits, _truth(batch.masks[last.rows, last.targets], logits)
    count = whole.pairs if whole else None
    shape = (squared_error(*masks, count),) if spec.mask_form == "l2" else mask_losses(*masks, count)
    score = score_loss(scores, pairs, batch.present, whole.scores * layers if whole else None)
    presence = presence_loss(presences, batch.present, whole.images * layers if whole else None)
    terms = dict(zip(parts(spec), (score, box_l1, box_giou, *shape, presence), strict=True))
    weighted = [getattr(spec, name) * value for name, value in terms.items()]
    return {**terms, "total": torch.stack(weighted).sum()}, last


def _wide(values: Tensor) -> Tensor:
    """In single precision at least: under autocast, sums over pixels would be rounded to half precision."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def score_loss(scores: Tensor, pairs: Matches, present: Tensor, whole: int | None = None) -> Tensor:
    """Is the query matched? Over images where the prompt names something; presence covers the others."""
    wanted = torch.zeros_like(scores)
    wanted[pairs.layers, pairs.rows, pairs.queries] = 1.0
    terms = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    counted = present[:, None].expand_as(scores[0]).float()
    count = (counted.sum() * len(scores)).clamp(min=1) if whole is None else max(1, whole)
    return (terms * counted).sum() / count


def box_losses(boxes: Tensor, wanted: Tensor, whole: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs of the L1 distance and of 1 − GIoU."""
    _, giou = iou_and_giou(boxes, wanted)
    count = max(1, len(boxes) if whole is None else whole)
    return (boxes - wanted).abs().sum() / count, (1 - giou).sum() / count


def mask_losses(logits: Tensor, wanted: Tensor, whole: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs [n, H, W] of the pixels' cross-entropy and of 1 − dice."""
    count = max(1, len(logits) if whole is None else whole)
    bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2)).sum() / count
    shares = logits.sigmoid()
    overlap, sizes = (shares * wanted).sum((1, 2)), shares.sum((1, 2)) + wanted.sum((1, 2))
    return bce, (1 - (2 * overlap + 1) / (sizes + 1)).sum() / count


def squared_error(logits: Tensor, wanted: Tensor, whole: int | None = None) -> Tensor:
    """Mean over matched pairs and pixels [n, H, W] of (σ(logit) − truth)²: the loss of the notes."""
    count = max(1, len(logits) if whole is None else whole)
    return (logits.sigmoid() - wanted).square().mean((1, 2)).sum() / count


def presence_loss(logits: Tensor, present: Tensor, whole: int | None = None) -> Tensor:
    """Does the image show what the prompt names? Over every layer."""
    wanted = _truth(present, logits).expand_as(logits)
    if whole is None:
        return F.binary_cross_entropy_with_logits(logits, wanted)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / whole


def _truth(target: Tensor, logits: Tensor) -> Tensor:
    """0 and 1 in single precision, in double for logits in double: PyTorch gives the cross-entropy the precision of
    its target, not that of its logits."""
    return target.to(torch.promote_types(torch.float32, logits.dtype))
