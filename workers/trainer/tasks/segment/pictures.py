"""Predictions of prompted segmentation, drawn: the truth on the left, the predictions on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.trainer.data.images.samples import Batch, Sample
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.task import Picture
from workers.trainer.tasks import pictures
from workers.trainer.tasks.segment.boxes import corners
from workers.trainer.tasks.segment.measures import chosen_queries, mask_iou, union_of_chosen


def draw_predictions(samples: Sequence[Sample], predictions: Predictions, batch: Batch) -> Iterator[Picture]:
    """One picture a sample. Nothing is drawn if presence is below ½."""
    masks = predictions.all_masks() > 0
    ious = mask_iou(union_of_chosen(masks, predictions.scores[-1]), batch.masks.any(1)).tolist()
    chosen = chosen_queries(predictions.scores[-1]).cpu().numpy()
    scores, presence = predictions.scores[-1].sigmoid().tolist(), predictions.presence[-1].sigmoid().tolist()
    boxes, truth = corners(predictions.boxes[-1]).cpu().numpy(), corners(batch.boxes).cpu().numpy()
    for row, sample in enumerate(samples):
        says_present = presence[row] >= 0.5
        picked = np.flatnonzero(chosen[row]) if says_present else np.zeros(0, np.int64)
        labels = [f"{scores[row][query]:.2f}" for query in picked]
        right = _panel(sample, masks[row].cpu().numpy()[picked], boxes[row][picked], labels)
        left = _panel(sample, sample.masks, truth[row][: len(sample.hits)], [""] * len(sample.hits))
        there = len(sample.hits) > 0
        iou = ious[row] if there and says_present else None
        caption = _caption(says_present, presence[row], iou)
        colour = pictures.GOOD if says_present == there and (iou is None or iou >= 0.5) else pictures.BAD
        image = pictures.side_by_side(
            [left, right], [("truth" if there else "truth: not there", pictures.INK), (caption, colour)]
        )
        meta = {
            "prompt": sample.prompt,
            "sample": row,
            "score": max(scores[row]),
            "presence": presence[row],
            "iou": iou,
            "present": there,
        }
        yield Picture(f"sample-{row}", image, meta)


def _panel(sample: Sample, masks: NDArray[np.bool_], boxes: NDArray[np.float64], labels: list[str]) -> Image.Image:
    return pictures.overlay(pictures.enlarge(sample.image), masks, boxes, labels)


def _caption(says_present: bool, presence: float, iou: float | None) -> str:
    if not says_present:
        return f"found nothing, presence {presence:.2f}"
    return f"presence {presence:.2f}" + ("" if iou is None else f", IoU {iou:.2f}")
