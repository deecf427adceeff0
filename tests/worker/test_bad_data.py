"""A run whose data cannot be used fails with the file's name, and the same worker trains the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.models import Run
from experiments.states import Reason, State
from tests.lab import coco_folder
from tests.service.factories import make_run
from tests.worker import fleet
from tests.worker.looking import ended

Hire = Callable[..., fleet.Worker]


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
