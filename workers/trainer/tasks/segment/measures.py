"""The evaluation measures of prompted segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.trainer.data.images.samples import Batch
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.boxes import iou_and_giou
from workers.trainer.tasks.segment.matcher import Matches

SCORES = ("prompt_iou", "mask_iou", "box_iou", "presence_accuracy")
METRICS = (*SCORES, "loss")


@dataclass
class Tally:
    """Collects values over batches; `means` are over all of them, NaN if there are none.

    prompt_iou: the union of the masks of all queries that score over ½ (else of the best one) against the union of
    all targets, over prompts with a target. mask_iou and box_iou: over Hungarian-matched pairs, so
    they measure shape and position, not selection. presence_accuracy: over all prompts.
    """

    values: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in SCORES})

    def add(self, predictions: Predictions, batch: Batch, matches: Matches) -> None:
        masks = predictions.all_masks() > 0  # B, Q, H, W
        chosen = union_of_chosen(masks, predictions.scores[-1])
        present = batch.present
        self._keep("prompt_iou", mask_iou(chosen, batch.masks.any(1))[present])
        wanted = batch.masks[matches.rows, matches.targets]
        self._keep("mask_iou", mask_iou(masks[matches.rows, matches.queries], wanted))
        boxes = predictions.boxes[-1][matches.rows, matches.queries]
        self._keep("box_iou", iou_and_giou(boxes, batch.boxes[matches.rows, matches.targets])[0])
        self._keep("presence_accuracy", ((predictions.presence[-1] > 0) == present).float())

    def means(self) -> dict[str, float]:
        return {name: mean_of(values) for name, values in self.values.items()}

    def _keep(self, name: str, value: Tensor) -> None:
        self.values[name].append(value.detach().cpu())


def mean_of(parts: Sequence[Tensor]) -> float:
    """The mean over all values of all parts; NaN if there are none."""
    values = torch.cat(list(parts)) if parts else torch.empty(0)
    return float(values.detach().mean()) if len(values) else math.nan


def chosen_queries(scores: Tensor) -> Tensor:
    """Queries that score over ½, and always the best one: B, Q bool."""
    best = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).bool()
    return (scores > 0) | best


def union_of_chosen(masks: Tensor, scores: Tensor) -> Tensor:
    return (masks & chosen_queries(scores)[:, :, None, None]).any(1)  # B, H, W


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boolean masks [n, H, W]."""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)
