"""The site where words ask the image: it is there when the spec says so, it matters, and it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.spec import content_hash, parse_spec
from tests.lab.collected import tiny, train_collected
from workers.trainer.attention.sites import sites
from workers.trainer.tasks.segment.losses import squared_error
from workers.trainer.tasks.segment.task import SegmentTask

SITE = "encoder.0.text_to_image"


def _task(**model: object) -> SegmentTask:
    return SegmentTask(tiny("segment", model=model), torch.device("cpu"))  # type: ignore[arg-type]


def test_the_words_ask_the_image_only_where_the_spec_says_so() -> None:
    assert SITE in sites(_task(text_to_image=True).model)
    assert not any(name.endswith("text_to_image") for name in sites(_task().model))


def test_its_default_changes_no_hash() -> None:
    raw = {"task": "segment", "data": {"dataset": "scenes"}}
    written = {**raw, "model": {"text_to_image": False}, "loss": {"mask_form": "bce_dice"}}
    assert content_hash(parse_spec(raw)) == content_hash(parse_spec(written))


def test_what_the_words_find_changes_scores_and_boxes() -> None:
    task = _task(text_to_image=True)
    batch = task.validation.batch(range(4))
    before = task.model(*batch.inputs)
    with torch.no_grad():
        sites(task.model)[SITE].W_o.mul_(50)
    after = task.model(*batch.inputs)
    assert not torch.allclose(before.scores, after.scores)
    assert not torch.allclose(before.boxes, after.boxes)


def test_its_matrices_learn(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("segment", model={"text_to_image": True}), tmp_path)
    assert sink.values(f"grad_norm/{SITE}/W_q").min() > 0
    assert sink.values(f"update_ratio/{SITE}/W_q").min() > 0


def test_the_squared_error_of_masks_is_that_of_the_notes() -> None:
    logits, wanted = torch.randn(3, 4, 4), (torch.rand(3, 4, 4) > 0.5).float()
    by_hand = sum(((1 / (1 + (-logits[n]).exp()) - wanted[n]) ** 2).mean() for n in range(3)) / 3
    assert squared_error(logits, wanted).item() == pytest.approx(float(by_hand), rel=1e-5)
    assert squared_error(logits[:0], wanted[:0]).item() == 0


def test_masks_train_on_the_squared_error_where_the_spec_says_so(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("segment", loss={"mask_form": "l2"}), tmp_path)
    names = set(sink.series("train"))
    assert "loss/mask_l2" in names
    assert not names & {"loss/mask_bce", "loss/mask_dice"}
