"""Questions to models of prompted segmentation: a validation image with its own prompt or another one.

Shapes: H, W pixels, Q queries, S prompt tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.spec import QuestionSpec
from workers.trainer.data.images.lexicon import UNKNOWN
from workers.trainer.data.images.samples import Batch, Sample, boxes_of, collate
from workers.trainer.inspection.figures import figures, picture
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.boxes import corners
from workers.trainer.tasks.segment.measures import chosen_queries, mask_iou
from workers.trainer.tasks.segment.task import SegmentTask

_QUERY_KINDS = {"text": "text", "encoder": "patch", "decoder": "query"}  # by the first part of a site's name
_KEY_KINDS = {"text": "text", "image": "patch", "text_to_image": "patch"}  # by the last part; self: as the queries


@dataclass
class Scene:
    """An image and a prompt as the model reads them."""

    batch: Batch
    truth: Tensor | None  # HW, what the prompt names; None for another prompt than the sample's own
    about: dict[str, Any]

    def run(self, model: nn.Module) -> Predictions:
        batch = self.batch.to(next(model.parameters()).device)
        predictions: Predictions = model(*batch.inputs)
        return predictions

    def output(self, raw: Predictions) -> dict[str, Any]:
        """Presence, scores and boxes of all queries, and the union of the masks of chosen queries."""
        scores = raw.scores[-1].sigmoid()[0]
        chosen = chosen_queries(raw.scores[-1])[0]
        mask = (raw.all_masks()[0] > 0)[chosen].any(0)
        output = {
            "presence": figures(raw.presence[-1].sigmoid()[0]),
            "scores": figures(scores),
            "boxes": figures(corners(raw.boxes[-1][0])),
            "chosen": chosen.nonzero().flatten().tolist(),
            "area": figures(mask.float().mean()),
            "mask": _grey(mask.cpu().numpy()),
        }
        if self.truth is not None and self.truth.any():
            output["iou"] = figures(mask_iou(mask[None], self.truth[None])[0])
        return output

    def axes(self, site: str) -> tuple[str, str]:
        first, last = site.partition(".")[0], site.rpartition(".")[2]
        queries = "text" if last == "text_to_image" else _QUERY_KINDS[first]
        return queries, _KEY_KINDS.get(last, queries)


def read_scene(task: SegmentTask, question: QuestionSpec) -> Scene:
    """A validation image with its own prompt, or with that of the question."""
    index, size = question.sample or 0, task.validation.size
    if index >= size:
        raise ValueError(f"sample: {index} is out of range; there are {size} validation images, numbered from 0")
    sample = task.validation[index]
    own = question.prompt is None or question.prompt.split() == sample.prompt.split()
    if not own and not sample.lexicon.encode(question.prompt or ""):
        raise ValueError("prompt: it is empty; type what to find")
    prompted = sample if own else replace(sample, prompt=question.prompt or "", hits=())
    batch = collate((prompted,), (boxes_of(prompted.masks),))
    return Scene(batch, batch.masks[0].any(0) if own else None, _about(task, sample, prompted, index, batch))


def _about(task: SegmentTask, sample: Sample, prompted: Sample, index: int, batch: Batch) -> dict[str, Any]:
    words = batch.tokens[0][batch.token_mask[0]].tolist()
    unknown = UNKNOWN in words
    about = {
        "image": picture(sample.image),
        "side": sample.image.shape[0],
        "grid": task.model.grid,
        "sample": index,
        "samples": task.validation.size,
        "prompt": prompted.prompt,
        "own_prompt": sample.prompt,
        "other_prompt": sample.other,
        "tokens": [sample.lexicon.vocabulary[word] for word in words],
        "unknown": ["a word of the prompt"] if unknown else [],
    }
    if prompted is sample:
        about |= {"present": bool(sample.hits), "truth": _grey(np.asarray(sample.masks.any(0)))}
    return about


def _grey(mask: NDArray[np.bool_]) -> str:
    return picture(np.where(mask, 255, 0).astype(np.uint8))
