"""Accumulated micro-batches are one larger batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor, nn

from experiments.spec import parse_spec
from tests.lab.collected import TINY, Collected, tiny
from workers.trainer.nets import segmenter
from workers.trainer.recording.recorder import Recorder
from workers.trainer.tasks import registry as tasks
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.training.loop import Session

STEP = 16
SCENES = {"dataset": "scenes", "train_size": 64, "val_size": 8, "test_size": 8}


def _step(scratch: Path, raw: dict[str, Any], batch: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss terms and gradients of step 1 in float64, from `STEP` samples in batches of `batch`."""
    train = {"steps": 3, "batch_size": batch, "accumulate": STEP // batch, "predictions": 0}
    spec = parse_spec({**raw, "train": train, "optimizer": {"warmup_steps": 1}, "resources": {"threads": 1}})
    session = Session(spec, Recorder(Collected(), lambda: 0.0), scratch)
    session.task.model.double()
    session.task.model.register_forward_pre_hook(_widened)
    doubling = segmenter.doubling
    wide = patch.object(segmenter, "doubling", lambda *given: doubling(*given).double())
    with wide, patch.object(Tensor, "float", Tensor.double):
        losses = session.backward(1)
    grads = {name: each.grad.clone() for name, each in session.task.model.named_parameters() if each.grad is not None}
    return {name: value.item() for name, value in losses.items()}, grads


def _widened(_model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.double() if isinstance(each, Tensor) and each.is_floating_point() else each for each in given)


CASES: dict[str, dict[str, Any]] = {
    **TINY,
    "scenes": {**TINY["segment"], "data": SCENES},
    "scenes-l2-last": {**TINY["segment"], "data": SCENES, "loss": {"mask_form": "l2", "aux": False}},
    "few-queries": {**TINY["segment"], "data": SCENES, "model": {**TINY["segment"]["model"], "queries": 4}},
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_a_step_has_the_gradients_of_one_batch_however_it_is_cut(case: str, batch: int, tmp_path: Path) -> None:
    whole, wanted = _step(tmp_path, CASES[case], STEP)
    terms, gradients = _step(tmp_path, CASES[case], batch)
    assert terms == pytest.approx(whole, rel=1e-10, abs=1e-12)
    scale = max(float(each.abs().max()) for each in wanted.values())
    assert scale > 1e-3
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert float((gradient - wanted[name]).abs().max()) <= 1e-10 * scale, name


def test_a_task_that_overrides_losses_without_the_step_gets_the_mean_of_its_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(ClassifyTask):
        def losses(self, micro_step: int) -> dict[str, Tensor]:
            return {name: 0 * value + micro_step for name, value in super().losses(micro_step).items()}

    monkeypatch.setitem(tasks.TASKS, "classify", Plain)
    session = Session(tiny(train={"accumulate": 4}), Recorder(Collected(), lambda: 0.0), tmp_path)
    assert session.backward(1)["total"].item() == pytest.approx((4 + 5 + 6 + 7) / 4)
