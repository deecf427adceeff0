"""How an order that cannot be carried out is reported."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.spec import resolved
from tests.lab.collected import Collected, tiny
from workers.protocol import Failure, Orders, Result, Started
from workers.trainer.entry.orders import carry_out, reason_of


def _carried_out(spec: dict[str, Any], scratch: Path, checkpoint: Path | None = None) -> Collected:
    sink = Collected()
    path = str(checkpoint) if checkpoint else None
    carry_out(Orders(run=1, fence=1, spec=spec, scratch=str(scratch), checkpoint=path), sink, lambda: None)
    return sink


def test_a_finished_order_ends_in_its_result(tmp_path: Path) -> None:
    assert _carried_out(resolved(tiny()), tmp_path).messages[-1] == Result(step=6)


def test_a_spec_this_worker_cannot_run_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    sink = _carried_out({"task": "classify", "data": {"dataset": "digits"}, "modle": {}}, tmp_path)
    [failure] = sink.messages
    assert isinstance(failure, Failure)
    assert failure.reason == "spec"
    assert "modle" in failure.message
    assert failure.traceback == ""


def test_a_stored_spec_whose_heads_do_not_divide_its_width_is_refused_by_name(tmp_path: Path) -> None:
    spec = resolved(tiny())
    spec["model"] |= {"heads": 3, "d_model": 64}
    [*_, failure] = _carried_out(spec, tmp_path).messages
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.traceback) == ("spec", "")
    assert "model.d_model: d_model (64) must be divisible by heads (3)" in failure.message


def test_a_device_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    sink = _carried_out(resolved(tiny(resources={"device": "cuda"})), tmp_path)
    failure = sink.messages[-1]
    assert isinstance(failure, Failure)
    assert "CUDA device" in failure.message
    assert failure.reason == "error"


def test_a_broken_checkpoint_is_a_failure_and_not_a_fresh_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 64)
    sink = _carried_out(resolved(tiny()), tmp_path, broken)
    failure = sink.messages[-1]
    assert isinstance(failure, Failure)
    assert "deserializing header" in failure.message
    assert not sink.of(Started)


def test_a_broken_loss_is_reported_as_nan(tmp_path: Path) -> None:
    wild = {"name": "sgd", "lr": 10.0, "clip_norm": None, "warmup_steps": 0}
    attention = {"init_std": 1.0, "scale": "none"}
    spec = tiny(optimizer=wild, model={"attention": attention}, train={"steps": 60, "eval_every": 60})
    failure = _carried_out(resolved(spec), tmp_path).messages[-1]
    assert isinstance(failure, Failure)
    assert failure.reason == "nan"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage"),
        (FileNotFoundError("gone"), "error"),
        (ValueError("odd"), "error"),
    ],
)
def test_the_reason_follows_from_the_error(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason
