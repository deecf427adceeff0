"""The loss terms of prompted segmentation. Each is a mean: its scale depends on no batch size or number of layers.

Where a step is several micro-batches, a term of one of them is its part of the mean over the step: its own sum, divided
by the step's `whole` number of what the term counts. Those parts add up to what one large batch has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import SegmentLoss
from workers.trainer.data.images.samples import Batch
from workers.trainer.nets.segmenter import Found
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
    asked: int  # scores of one layer, in images where the prompt names something
    images: int

    @classmethod
    def of(cls, targets: Sequence[int], queries: int) -> Whole:
        """`targets`: how many the prompt names, in each image of the step. More than there are queries find none."""
        pairs, present = sum(min(count, queries) for count in targets), sum(count > 0 for count in targets)
        return cls(pairs, present * queries, len(targets))


def segment_losses(
    found: Found, batch: Batch, spec: SegmentLoss, step_targets: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], Matches]:
    """Every term, unweighted, and `total`, their weighted sum; besides, the matches of the last layer. `step_targets`
    is given where the batch is a part of a step, or of an evaluation: the number of targets of every image of it."""
    first = 0 if spec.aux else len(found.scores) - 1
    scores, boxes, presences = (_wide(each[first:]) for each in (found.scores, found.boxes, found.presence))
    layers, whole = len(scores), None if step_targets is None else Whole.of(step_targets, found.scores[-1].shape[-1])
    pairs = match(scores, boxes, batch.boxes, batch.valid)
    last = pairs.last(layers)
    chosen = boxes[pairs.layers, pairs.rows, pairs.queries], batch.boxes[pairs.rows, pairs.targets]
    box_l1, box_giou = box_losses(*chosen, whole.pairs * layers if whole else None)
    logits = _wide(found.masks(last.rows, last.queries))
    masks = logits, _truth(batch.masks[last.rows, last.targets], logits)
    count = whole.pairs if whole else None
    shape = (squared_error(*masks, count),) if spec.mask_form == "l2" else mask_losses(*masks, count)
    score = score_loss(scores, pairs, batch.present, whole.asked * layers if whole else None)
    presence = presence_loss(presences, batch.present, whole.images * layers if whole else None)
    terms = dict(zip(parts(spec), (score, box_l1, box_giou, *shape, presence), strict=True))
    weighted = [getattr(spec, name) * value for name, value in terms.items()]
    return {**terms, "total": torch.stack(weighted).sum()}, last


def _wide(found: Tensor) -> Tensor:
    """In single precision at least: autocast hands over halves, and sums over pixels would be rounded to their bits."""
    return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found


def score_loss(scores: Tensor, pairs: Matches, present: Tensor, whole: int | None = None) -> Tensor:
    """Is the query a match? Over images where the prompt names something: elsewhere presence answers."""
    wanted = torch.zeros_like(scores)
    wanted[pairs.layers, pairs.rows, pairs.queries] = 1.0
    each = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    asked = present[:, None].expand_as(scores[0]).float()
    count = (asked.sum() * len(scores)).clamp(min=1) if whole is None else max(1, whole)
    return (each * asked).sum() / count


def box_losses(found: Tensor, wanted: Tensor, whole: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs of the L1 distance and of 1 − GIoU."""
    _, giou = iou_and_giou(found, wanted)
    count = max(1, len(found) if whole is None else whole)
    return (found - wanted).abs().sum() / count, (1 - giou).sum() / count


def mask_losses(logits: Tensor, wanted: Tensor, whole: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean over matched pairs [n, H, W] of the pixels' cross-entropy and of 1 − dice."""
    count = max(1, len(logits) if whole is None else whole)
    bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2)).sum() / count
    shares = logits.sigmoid()
    overlap, sizes = (shares * wanted).sum((1, 2)), shares.sum((1, 2)) + wanted.sum((1, 2))
    return bce, (1 - (2 * overlap + 1) / (sizes + 1)).sum() / count


def squared_error(logits: Tensor, wanted: Tensor, whole: int | None = None) -> Tensor:
    """Mean over matched pairs and pixels [n, H, W] of (σ(logit) − truth)²: the loss that the notes write down."""
    count = max(1, len(logits) if whole is None else whole)
    return (logits.sigmoid() - wanted).square().mean((1, 2)).sum() / count


def presence_loss(logits: Tensor, present: Tensor, whole: int | None = None) -> Tensor:
    """Is anything in the image what the prompt names? Every layer answers."""
    wanted = _truth(present, logits).expand_as(logits)
    if whole is None:
        return F.binary_cross_entropy_with_logits(logits, wanted)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / whole


def _truth(said: Tensor, logits: Tensor) -> Tensor:
    """0 and 1 in single precision, in double for logits in double: PyTorch gives the cross-entropy the precision of
    its target, not that of its logits."""
    return said.to(torch.promote_types(torch.float32, logits.dtype))
