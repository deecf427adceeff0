"""A run whose data cannot be used fails with the file's name, and the same worker trains the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import lifecycle
from experiments.models import Run
from experiments.spec.revision import REVISION
from experiments.states import Reason, State
from tests.lab import coco_folder
from tests.service.factories import make_run
from tests.worker import processes
from tests.worker.runs import ended, reaches, recorded

Hire = Callable[..., processes.Worker]


def _queue(path: str) -> Run:
    spec: dict[str, Any] = {
        "task": "segment",
        "data": {"dataset": "coco", "path": path, "canvas": 32, "val_share": 0.4},
        "model": {"d_model": 16, "heads": 2, "ffn": 16, "queries": 4, "encoder_layers": 1, "patch": 8},
        "train": {"steps": 2, "batch_size": 4, "predictions": 0},
        "resources": {"threads": 1, "pool": "folders"},
    }
    return make_run(spec=spec)


@pytest.mark.slow
def test_a_folder_without_one_of_its_images_fails_its_run_and_the_worker_goes_on(hire: Hire, tmp_path: Path) -> None:
    for name in ("broken", "whole"):
        coco_folder.write(tmp_path / name)
    (tmp_path / "broken" / "images" / "004.png").unlink()
    broken, whole = _queue("broken"), _queue("whole")
    worker = hire("folders", ATTN_DATA_ROOT=str(tmp_path)).ready()
    failed, trained = ended(broken), ended(whole)
    assert (failed.state, failed.reason) == (State.FAILED, Reason.ERROR)
    assert "broken/images/004.png: there is no such file" in failed.detail
    assert trained.state == State.SUCCEEDED, trained.detail
    assert {attempt.worker.name for run in (broken, whole) for attempt in run.attempts.all()} == {worker.node}  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_run_does_not_go_on_over_another_text_and_loses_nothing_until_the_former_is_back(
    hire: Hire, tmp_path: Path
) -> None:
    letters = "the cat sat on the mat and saw the hat of the rat. " * 40
    (tmp_path / "t.txt").write_text(letters)
    spec: dict[str, Any] = {
        "task": "language",
        "data": {"dataset": "text", "path": "t.txt", "context": 16, "characters": 32},
        "model": {"d_model": 16, "heads": 2, "ffn": 16},
        "train": {"steps": 1000, "batch_size": 4, "eval_every": 1000, "checkpoint_every": 20, "predictions": 0},
        "resources": {"threads": 1, "pool": "texts"},
    }
    run = make_run(spec=spec)
    hire("texts", ATTN_DATA_ROOT=str(tmp_path)).ready()
    reaches(run, 40, 60)
    lifecycle.request_cancel(run.pk, None)
    stopped = ended(run)
    assert (stopped.state, stopped.checkpoint_step >= 40) == (State.CANCELLED, True)

    (tmp_path / "t.txt").write_text(letters.upper())
    lifecycle.retry(run.pk, None)
    refused = ended(run)
    assert (refused.state, refused.reason) == (State.FAILED, Reason.SPEC)
    assert refused.detail.startswith("t.txt is not the file that this run began with")
    assert (refused.checkpoint_step, refused.committed_step) == (stopped.checkpoint_step, stopped.checkpoint_step)

    (tmp_path / "t.txt").write_text(letters)
    lifecycle.retry(run.pk, None)
    done = ended(run)
    assert done.state == State.SUCCEEDED, done.detail
    assert done.identity.revision == REVISION
    assert len(recorded(done)["loss/total"].values) == 1000
