"""A run never ends well with weights that are no numbers, and no checkpoint holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from experiments.spec import Spec, resolved
from tests.lab.collected import Collected, tiny, train_collected
from tests.lab.test_recorder import exploding
from workers.protocol import Checkpoint, Failure, Log, Orders
from workers.trainer.entry.orders import carry_out
from workers.trainer.recording.recorder import NonFinite, Recorder
from workers.trainer.tasks import registry as tasks
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.training.loop import train

ADAMW: dict[str, Any] = {"name": "adamw", "clip_norm": 0.1}
SGD: dict[str, Any] = {"name": "sgd", "clip_norm": 1.0}
OPTIMIZERS = [ADAMW, {**ADAMW, "clip_norm": None}, SGD, {**SGD, "clip_norm": None}]


class _Broken(torch.autograd.Function):
    """Adds nothing to the loss and something that is not finite to the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: float) -> Tensor:
        ctx.gradient = torch.full_like(value, gradient)
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_given: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the gradient of one step `gradient` while its loss stays what it is."""

    def install(step: int, gradient: float) -> None:
        class Breaking(ClassifyTask):
            def losses(self, micro_step: int) -> dict[str, Tensor]:
                found = super().losses(micro_step)
                if micro_step == step:
                    weight = next(iter(self.model.parameters()))
                    found["total"] = found["total"] + _Broken.apply(weight, gradient)
                return found

        monkeypatch.setitem(tasks.TASKS, "classify", Breaking)

    return install


def _run(spec: Spec, scratch: Path) -> Collected:
    sink = Collected()
    recorder = Recorder(sink, lambda: 0.0, fail_on_nan=spec.train.on_nan == "fail")
    try:
        train(spec, recorder, lambda: None, scratch=scratch)
    except NonFinite as error:
        sink.messages.append(Failure(reason="nan", message=str(error)))
    return sink


def _all_finite(checkpoint: Checkpoint) -> bool:
    tensors = load_file(checkpoint.path)
    return all(np.isfinite(value).all() for value in tensors.values() if value.dtype.kind == "f")


@pytest.mark.parametrize(("step", "every"), [(4, 1), (5, 4), (3, 2)])  # of six; checkpoints are due after 2 and 5
@pytest.mark.parametrize("gradient", [float("nan"), float("inf"), 1e30])  # the last: its norm overflows
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: f"{each['name']}-{each['clip_norm']}")
def test_a_gradient_that_is_not_finite_ends_the_run_though_its_loss_is(
    tmp_path: Path, broken_at: Any, optimizer: dict[str, Any], gradient: float, step: int, every: int
) -> None:
    broken_at(step, gradient)
    sink = _run(tiny(optimizer=optimizer, record={"every": every}, train={"eval_every": 100}), tmp_path)
    told = [each.message for each in sink.of(Failure)]
    assert len(told) == 1
    if step % every == 0:
        assert told == [f"grad_norm/total is not finite at step {step}"]
    assert [each.step for each in sink.of(Checkpoint)] == [3]
    assert _all_finite(sink.of(Checkpoint)[0])
    assert np.isfinite(sink.values("loss/total")[sink.series()["loss/total"][0] <= step]).all()


def test_with_record_the_run_goes_on_and_its_last_good_checkpoint_stays(tmp_path: Path, broken_at: Any) -> None:
    broken_at(4, float("nan"))
    sink = _run(tiny(train={"on_nan": "record", "predictions": 2}), tmp_path)
    assert not sink.of(Failure)
    assert [each.step for each in sink.of(Checkpoint)] == [3]
    assert np.isnan(sink.values("grad_norm/total")[4])
    (told,) = [each.text for each in sink.of(Log) if "not finite" in each.text]
    assert "after step 4: no further evaluation, probe or checkpoint" in told


def test_a_step_that_fp16_leaves_out_ends_no_run(tmp_path: Path, broken_at: Any) -> None:
    broken_at(4, float("inf"))
    sink = _run(tiny(train={"precision": "fp16"}), tmp_path)
    assert not sink.of(Failure)
    assert np.isinf(sink.values("grad_norm/total")[4])
    assert [each.step for each in sink.of(Checkpoint)] == [3, 6]
    assert all(map(_all_finite, sink.of(Checkpoint)))
    assert "steps that fp16 skipped in this attempt, since gradients overflowed: 1" in [m.text for m in sink.of(Log)]


@pytest.mark.parametrize("task", ["classify", "segment", "pointer", "language"])
@pytest.mark.parametrize("on_nan", ["fail", "record"])
def test_a_training_that_diverges_is_told_as_that_in_every_task(tmp_path: Path, task: str, on_nan: str) -> None:
    changes = exploding(on_nan=on_nan, predictions=2, eval_every=20, checkpoint_every=20)
    spec = tiny(task, **changes)
    sink = Collected()
    ended = carry_out(Orders(run=1, fence=1, spec=resolved(spec), scratch=str(tmp_path)), sink, lambda: None)
    assert ended == (on_nan == "record"), sink.of(Failure)
    assert [each.reason for each in sink.of(Failure)] == ([] if ended else ["nan"])
    assert any("not finite" in each.text for each in sink.of(Log)) == ended
    assert all(map(_all_finite, sink.of(Checkpoint)))


def test_an_infinite_number_that_a_model_begins_with_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Masked(ClassifyTask):
        def build(self) -> Any:
            model = super().build()
            model.register_buffer("never", torch.tensor([0.0, -torch.inf]))
            return model

    monkeypatch.setitem(tasks.TASKS, "classify", Masked)
    sink, _ = train_collected(tiny(), tmp_path)
    assert [each.step for each in sink.of(Checkpoint)] == [3, 6]
