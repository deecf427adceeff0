"""What evaluation says is a property of weights and data, not of how the data were cut into batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.spec import parse_spec, resolved
from tests.lab import coco_folder, foreign
from tests.lab.collected import tiny, train_collected
from tests.lab.test_hf import raw
from workers.trainer.tasks.registry import build_task
from workers.trainer.tasks.segment.average_precision import AP_METRICS, AveragePrecision
from workers.trainer.tasks.segment.losses import segment_losses

CASES: dict[str, dict[str, Any]] = {
    "digit-scenes": resolved(tiny("segment", data={"val_size": 20})),
    "few-queries-l2": resolved(tiny("segment", model={"queries": 2}, loss={"mask_form": "l2", "aux": False})),
    "scenes": {**resolved(tiny("segment")), "data": {"dataset": "scenes", "train_size": 16, "val_size": 20}},
    "coco": {
        **resolved(tiny("segment")),
        "data": {"dataset": "coco", "path": "shapes", "canvas": 32, "val_share": 0.8},
    },
    "hf": raw({"dataset": "scenes", "train_size": 8, "val_size": 20}, foreign.SAM3),
}


@pytest.mark.parametrize("case", CASES)
def test_every_measure_is_the_same_in_batches_of_1_of_7_and_in_one(
    case: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder.write(root / "shapes")
    task: Any = build_task(parse_spec(CASES[case]), torch.device("cpu"))
    task.model.eval()
    found = {}
    for size in (1, 7, 1000):
        monkeypatch.setattr(task, "eval_batch", size)
        found[size] = task.evaluate()
    assert found[1] == pytest.approx(found[1000], rel=1e-5)
    assert found[7] == pytest.approx(found[1000], rel=1e-5)


def test_the_loss_of_an_evaluation_is_that_of_all_its_samples_as_one_batch(root: Path) -> None:
    task: Any = build_task(tiny("segment", data={"val_size": 100}), torch.device("cpu"))
    batch = task.validation.batch(range(100))
    with torch.no_grad():
        terms, _ = segment_losses(task.model(*batch.inputs), batch, task.spec.loss)
    assert task.evaluate()["loss"] == pytest.approx(terms["total"].item(), rel=1e-5)


def test_where_nothing_is_there_to_be_found_no_precision_is_told(root: Path) -> None:
    """Zero would say that the model found none of it."""
    task: Any = build_task(tiny("segment"), torch.device("cpu"))
    empty = [row for row in range(task.training.size) if not task.training[row].hits]
    full = [row for row in range(task.training.size) if task.training[row].hits]
    for rows, defined in ((empty, False), (full, True)):
        batch, precision = task.training.batch(rows), AveragePrecision()
        precision.add(task.model(*batch.inputs), batch, [0] * len(rows))
        undefined = {name: math.isnan(value) for name, value in precision.values().items()}
        assert undefined == dict.fromkeys(AP_METRICS, not defined)


@pytest.mark.parametrize("dataset", ["scenes", "digit-scenes"])
def test_a_test_split_in_which_no_prompt_names_anything_leaves_undefined_what_it_cannot_tell(
    dataset: str, tmp_path: Path
) -> None:
    few = {"dataset": dataset, "train_size": 16, "val_size": 8, "test_size": 8, "absent": 0.9}
    raw = {**resolved(tiny("segment", model={"text_to_image": True}, train={"steps": 2})), "data": few}
    sink, _ = train_collected(parse_spec(raw), tmp_path)
    found = {name: float(values[-1]) for name, (_, values) in sink.series("test").items()}
    assert math.isnan(found["test/prompt_iou"])
    assert math.isnan(found["test/text_mass"])
    assert math.isnan(found["test/mask_ap"])
    assert found["test/always_yes/presence_accuracy"] == 0


def test_a_category_that_nothing_shows_is_no_part_of_the_mean_precision() -> None:
    task: Any = build_task(tiny("segment"), torch.device("cpu"))
    batch = task.training.batch(range(task.training.size))
    there = batch.valid.any(1)
    found = task.model(*batch.inputs)
    alone, beside = AveragePrecision(), AveragePrecision()
    alone.add(found, batch, [0] * len(there))
    alone.detections = [each for each in alone.detections if there[each["image_id"]]]
    beside.add(found, batch, [0 if own else 7 for own in there.tolist()])
    assert beside.values() == alone.values()
