"""A run that goes on from a checkpoint ends with the same bits as one that was never interrupted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.spec import Spec
from tests.lab.collected import Collected, tiny, train_collected
from workers.protocol import Checkpoint, Log
from workers.trainer.training.checkpoint import CheckpointError
from workers.trainer.training.loop import Fork

EXEMPT = ("time/", "system/")


def _last_checkpoint(sink: Collected) -> Path:
    return Path(sink.of(Checkpoint)[-1].path)


def _optimizers() -> list[dict[str, object]]:
    return [{"warmup_steps": 3}, {"name": "sgd", "lr": 0.05, "momentum": 0.9, "warmup_steps": 1}]


@pytest.mark.parametrize("optimizer", _optimizers(), ids=["adamw", "sgd"])
@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_resumed_run_repeats_every_value_and_every_weight_bit_for_bit(
    tmp_path: Path, task: str, optimizer: dict[str, object]
) -> None:
    _repeats(tmp_path, tiny(task, optimizer=optimizer, train={"steps": 7}))


@pytest.mark.parametrize(
    "train",
    [
        {"precision": "bf16"},
        {"precision": "fp16", "accumulate": 2},
        {"ema": 0.9},
        {"recompute": True, "deterministic": False},
    ],
    ids=lambda train: next(iter(train)) + "-" + str(next(iter(train.values()))),
)
@pytest.mark.parametrize("task", ["pointer", "segment"])
def test_a_resumed_run_repeats_itself_in_every_way_of_training(
    tmp_path: Path, task: str, train: dict[str, object]
) -> None:
    _repeats(tmp_path, tiny(task, train={"steps": 7, **train}))


@pytest.mark.parametrize("schedule", ["linear", "inverse_sqrt", "step"])
def test_a_resumed_run_goes_on_in_its_schedule(tmp_path: Path, schedule: str) -> None:
    _repeats(tmp_path, tiny(optimizer={"schedule": schedule, "drop_every": 2}, train={"steps": 7}))


def _repeats(tmp_path: Path, spec: Spec) -> None:
    """A run of seven steps, and the same one stopped after four."""
    whole, _ = train_collected(spec, tmp_path / "whole")
    first, stopped = train_collected(spec, tmp_path / "first", stop_after=4)
    assert (stopped.step, stopped.stopped) == (4, "preempt")
    second, done = train_collected(spec, tmp_path / "second", checkpoint=_last_checkpoint(first))
    assert (done.step, done.stopped) == (7, None)
    for group in ("train", "eval", "probe", "test"):
        for name, (steps, values) in whole.series(group).items():
            if name.startswith(EXEMPT):
                continue
            parts = [first.series(group)[name], second.series(group)[name]]
            np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), steps)
            np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), values, err_msg=name)
    expected, found = load_file(_last_checkpoint(whole)), load_file(_last_checkpoint(second))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


EVERY_WAY: dict[str, Any] = {"steps": 6, "accumulate": 3, "ema": 0.9, "checkpoint_every": 100, "eval_every": 2}


@pytest.mark.parametrize(
    ("task", "precision"), [("roles", "fp32"), ("segment", "fp16"), ("language", "bf16"), ("classify", "fp16")]
)
def test_a_run_that_is_stopped_after_each_of_its_steps_ends_as_if_it_never_was(
    tmp_path: Path, task: str, precision: str
) -> None:
    """Six attempts of one step each, of three micro-batches."""
    spec = tiny(task, train={**EVERY_WAY, "precision": precision}, optimizer={"clip_norm": 0.1, "warmup_steps": 2})
    whole, _ = train_collected(spec, tmp_path / "whole")
    attempts: list[Collected] = []
    for attempt in range(6):
        checkpoint = _last_checkpoint(attempts[-1]) if attempts else None
        sink, end = train_collected(spec, tmp_path / str(attempt), stop_after=attempt + 1, checkpoint=checkpoint)
        assert end.step == attempt + 1
        attempts.append(sink)
    for group in ("train", "eval", "probe"):
        for name, (_, values) in whole.series(group).items():
            if not name.startswith(EXEMPT):
                found = np.concatenate([own.series(group)[name][1] for own in attempts])
                np.testing.assert_array_equal(found, values, err_msg=name)
    expected, found_weights = load_file(_last_checkpoint(whole)), load_file(_last_checkpoint(attempts[-1]))
    assert expected.keys() == found_weights.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found_weights[name], value, err_msg=name)


def test_a_checkpoint_is_whole_named_by_its_steps_and_hashed(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(), tmp_path)
    saved = sink.of(Checkpoint)
    assert [checkpoint.step for checkpoint in saved] == [3, 6]
    for checkpoint in saved:
        data = Path(checkpoint.path).read_bytes()
        assert len(data) == checkpoint.size
        assert hashlib.sha256(data).hexdigest() == checkpoint.sha256
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_of_another_spec_is_refused(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(), tmp_path)
    with pytest.raises(CheckpointError, match="another spec"):
        train_collected(tiny(model={"ffn": 32}), tmp_path, checkpoint=_last_checkpoint(sink))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    spec = tiny("segment", train={"steps": 3})
    first, _ = train_collected(spec, tmp_path / "a")
    second, _ = train_collected(spec, tmp_path / "b")
    other, _ = train_collected(spec.model_copy(update={"seed": 1}), tmp_path / "c")
    np.testing.assert_array_equal(first.values("loss/total"), second.values("loss/total"))
    assert (first.values("loss/total") != other.values("loss/total")).all()


def _forked(tmp_path: Path, **changes: dict[str, object]) -> tuple[str, dict[str, np.ndarray]]:
    """A fork of a run of 3 steps that trains one step more, and what it said about its beginning."""
    first, _ = train_collected(tiny(train={"steps": 3}), tmp_path / "parent")
    fork = Fork(tiny(train={"steps": 3}))
    sink, done = train_collected(
        tiny(train={"steps": 4}, **changes), tmp_path / "fork", checkpoint=_last_checkpoint(first), fork=fork
    )
    assert done.step == 4
    return sink.of(Log)[0].text, load_file(_last_checkpoint(sink))


def test_a_fork_takes_weights_and_optimizer_and_begins_where_its_parent_stood(tmp_path: Path) -> None:
    words, kept = _forked(tmp_path, optimizer={"schedule": "constant"})
    assert words == "forked at step 3: the parent's weights and its optimizer state"
    assert kept["optimizer/0/step"] == 4


@pytest.mark.parametrize("changes", [{"optimizer": {"name": "sgd"}}, {"model": {"attention": {"frozen": ["W_q"]}}}])
def test_a_fork_begins_with_a_fresh_optimizer_where_the_parents_state_belongs_to_other_numbers(
    tmp_path: Path, changes: dict[str, dict[str, object]]
) -> None:
    words, kept = _forked(tmp_path, **changes)
    assert "a fresh optimizer" in words
    counts = {int(value) for name, value in kept.items() if name.startswith("optimizer/") and name.endswith("/step")}
    assert counts == ({1} if "model" in changes else set()), "SGD counts no steps"


def test_a_fork_into_another_shape_is_the_specs_fault(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        _forked(tmp_path, model={"ffn": 32})
