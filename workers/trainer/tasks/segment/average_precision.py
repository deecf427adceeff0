"""COCO's average precision of prompted segmentation, through pycocotools.

Every (image, prompt) pair counts as an image. A query's confidence is σ(score)·σ(presence), so a detection where
nothing is costs precision.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from workers.trainer.data.images.samples import Batch
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.boxes import corners

AP_METRICS = ("ap", "ap50", "box_ap", "box_ap50")  # mean over IoU .50:.05:.95, and at .50; of masks and of boxes


class AveragePrecision:
    """Collects batches; `values` has AP_METRICS in [0, 1], NaN if there is no target at all. The mean over categories
    leaves out those without a target."""

    def __init__(self) -> None:
        self.images, self.side = 0, 0
        self.truth: list[dict[str, Any]] = []
        self.detections: list[dict[str, Any]] = []

    @torch.no_grad()
    def add(self, predictions: Predictions, batch: Batch, categories: Sequence[int]) -> None:
        """`categories` are those of the prompts; precision is averaged over them."""
        masks, wanted = (predictions.all_masks() > 0).cpu().numpy(), batch.masks.cpu().numpy()
        scores = (predictions.scores[-1].sigmoid() * predictions.presence[-1].sigmoid().unsqueeze(-1)).tolist()
        self.side = masks.shape[-1]
        boxes, true_boxes = ((corners(x) * self.side).cpu().numpy() for x in (predictions.boxes[-1], batch.boxes))
        for row, category in enumerate(categories):
            there = batch.valid[row].cpu().numpy()
            about: dict[str, Any] = {"image_id": self.images, "category_id": category}
            self.images += 1
            for mask, box in zip(wanted[row][there], true_boxes[row][there], strict=True):
                _append(self.truth, about | {"iscrowd": 0}, mask, box)
            for mask, box, score in zip(masks[row], boxes[row], scores[row], strict=True):
                _append(self.detections, about | {"score": score}, mask, box)

    def values(self) -> dict[str, float]:
        if not self.truth:
            return dict.fromkeys(AP_METRICS, math.nan)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            truth, detections = self._index(self.truth), self._index(self.detections)
            both = [_evaluated(truth, detections, kind) for kind in ("segm", "bbox")]
        return dict(zip(AP_METRICS, (value for pair in both for value in pair), strict=True))

    def _index(self, annotations: list[dict[str, Any]]) -> COCO:
        categories = sorted({annotation["category_id"] for annotation in self.truth + self.detections})
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image, "height": self.side, "width": self.side} for image in range(self.images)],
            "categories": [{"id": category} for category in categories],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco


def _append(
    annotations: list[dict[str, Any]], about: dict[str, Any], mask: NDArray[np.bool_], box: NDArray[np.float64]
) -> None:
    left, top, right, bottom = box.tolist()
    shape = {"segmentation": rle.encode(np.asfortranarray(mask, np.uint8)), "area": float(mask.sum())}
    own = {"id": len(annotations) + 1, "bbox": [left, top, right - left, bottom - top]}
    annotations.append(about | shape | own)


def _evaluated(truth: COCO, detections: COCO, kind: str) -> tuple[float, float]:
    evaluation = COCOeval(truth, detections, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ap, ap50 = map(float, evaluation.stats[:2])
    return ap, ap50
