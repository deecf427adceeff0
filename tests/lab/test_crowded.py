"""Images with more things of a category than the model has queries: trained on, scored by all, and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

from experiments.spec import Spec, parse_spec, resolved
from tests.lab import coco_folder
from tests.lab.collected import tiny, train_collected
from tests.lab.test_coco import data, samples
from workers.protocol import Log, Started
from workers.trainer.data.images.samples import Sample, boxes_of, collate
from workers.trainer.tasks.segment.data import splits
from workers.trainer.tasks.segment.matcher import cost_matrix, match

SIDE, THINGS = 256, 125
PER_ROW = 12


def crowd(folder: Path) -> None:
    """Six images; each shows a cat, and all but the last one traffic light. The last shows 125 of them."""
    listing = coco_folder.write(folder, count=6)
    listing["annotations"].clear()
    for image in range(6):
        pixels = np.full((SIDE, SIDE, 3), 90, np.uint8)
        cells = [(20 * (place // PER_ROW), 20 * (place % PER_ROW)) for place in range(THINGS if image == 5 else 1)]
        for top, left in cells:
            pixels[top : top + 10, left : left + 10] = (250, 40, 40)
            shape = [left, top, left + 10, top, left + 10, top + 10, left, top + 10]
            _add(listing, image, 10, shape)
        pixels[230:250, 200:250] = (40, 250, 40)
        _add(listing, image, 20, [200, 230, 250, 230, 250, 250, 200, 250])
        entry = listing["images"][image]
        entry.update(width=SIDE, height=SIDE)
        Image.fromarray(pixels).save(folder / "images" / entry["file_name"])
    coco_folder.save(folder, listing)


def _add(listing: dict[str, list[object]], image: int, category: int, polygon: list[int]) -> None:
    own = {"id": len(listing["annotations"]), "image_id": image, "category_id": category, "iscrowd": 0}
    listing["annotations"].append({**own, "segmentation": [polygon]})


def spec(**model: int) -> Spec:
    raw = resolved(tiny("segment", model=model, train={"steps": 3, "batch_size": 8}))
    return parse_spec({**raw, "data": data("crowd", absent=0.2, canvas=64).model_dump()})


@pytest.mark.parametrize("canvas", [32, 128])
def test_every_thing_of_a_crowded_image_is_a_target_whatever_the_canvas(root: Path, canvas: int) -> None:
    crowd(root / "crowd")
    found = splits(data("crowd", canvas=canvas))
    every = [sample for part in (found.train, found.val, found.test) for sample in samples(part)]
    (crowded,) = [sample for sample in every if len(sample.hits) > 1]
    batch = collate([crowded, every[0]], [boxes_of(crowded.masks), boxes_of(every[0].masks)])
    assert batch.valid.sum(1).tolist() == [THINGS, len(every[0].hits)]
    assert batch.masks[0].flatten(1).any(1).all()
    assert not batch.masks[1, len(every[0].hits) :].any()
    centres = {tuple((box[:2] * SIDE).round().int().tolist()) for box in batch.boxes[0]}
    assert len(centres) == THINGS


def test_a_training_with_few_queries_goes_on_and_says_what_is_left_over(root: Path, tmp_path: Path) -> None:
    crowd(root / "crowd")
    sink, outcome = train_collected(spec(queries=4), tmp_path)
    assert outcome.step == 3
    (started,) = sink.of(Started)
    (notice,) = started.notices
    assert notice.kind == "left_out"
    assert notice.text.startswith("1 prompt with more objects than the model has queries (4)")
    assert "leaves 121 objects unmatched;" in notice.text
    assert "model.queries = 125" in notice.text
    assert notice.items == ["005.png: traffic light, 125 annotations"]
    assert notice.text in [log.text for log in sink.of(Log)]
    assert np.isfinite(sink.values("loss/total")).all()


def test_a_model_with_a_query_for_each_leaves_nothing_out(root: Path, tmp_path: Path) -> None:
    crowd(root / "crowd")
    sink, _ = train_collected(spec(queries=THINGS), tmp_path)
    assert sink.of(Started)[0].notices == []


def test_each_query_is_matched_where_targets_are_more() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, boxes = torch.randn(2, 1, 4, generator=generator), torch.rand(2, 1, 4, 4, generator=generator)
    targets = torch.rand(1, 9, 4, generator=generator)
    found = match(scores, boxes, targets, torch.ones(1, 9, dtype=torch.bool))
    assert len(found.queries) == 2 * 4
    costs = cost_matrix(scores, boxes, targets)
    for layer in range(2):
        queries, hits = linear_sum_assignment(costs[layer, 0].numpy())
        mine = found.layers == layer
        assert costs[layer, 0][found.queries[mine], found.targets[mine]].sum().item() == pytest.approx(
            costs[layer, 0][queries, hits].sum().item()
        )


def test_a_thing_that_lies_under_others_keeps_its_mask() -> None:
    masks = np.zeros((3, 8, 8), np.bool_)
    masks[0], masks[1, 2:6, 2:6], masks[2, 2:6, 2:6] = True, True, True
    labels = np.zeros((8, 8), np.uint16)
    labels[2:6, 2:6] = 3
    packed = np.packbits(masks.reshape(3, -1), axis=1)
    sample = Sample(np.zeros((8, 8, 3), np.uint8), labels, (1, 2, 3), "cat", packed=packed)
    assert (sample.masks == masks).all()
    assert (collate([sample], [boxes_of(masks)]).masks[0, :3].numpy() == masks).all()
