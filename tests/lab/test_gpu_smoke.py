"""`make gpu-smoke` in its short form on the CPU; and that it fails where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.smoke import kernels, norms, own_loop
from benchmarks.smoke.report import Line, Report, Skip
from workers.trainer.recording import norms as recorded_norms
from workers.trainer.recording.own_loop import record as recording

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("django", "celery", "redis", "transformers", "timm", "peft", "accelerate", "torchvision", "playwright")
# Read at the start of every Python, of a trainer's process too.
BLOCK = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {NOT_NEEDED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.mark.slow
def test_it_passes_on_a_cpu_that_has_torch_and_nothing_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    command = [sys.executable, "-m", "benchmarks.smoke", "--device", "cpu", "--short", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(next(tmp_path.glob("gpu-smoke-cpu-*.json")).read_text())
    passed = {line["check"] for line in told["checks"] if line["passed"]}
    assert {"trainer process: pointer", "norms against autograd: pointer fp32", "own loop, torch.nn: fp16"} <= passed
    assert "killed and resumed at step 6: pointer fp32" in passed


def _passed(lines: Iterator[Line]) -> set[bool]:
    return {line.passed for line in lines if line.passed is not None}


def test_a_norm_that_is_off_by_a_ten_thousandth_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _passed(norms.norms("cpu", ("pointer",), ("fp32",), tmp_path)) == {True}
    true = recorded_norms.Stack.norms
    off: Any = lambda *given, **told: [norm * 1.0001 for norm in true(*given, **told)]  # noqa: E731
    monkeypatch.setattr(recorded_norms.Stack, "norms", off)
    assert _passed(norms.norms("cpu", ("pointer",), ("fp32",), tmp_path)) == {False}


def test_heads_in_another_order_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = recorded_norms.Stack.head_norms
    monkeypatch.setattr(recorded_norms.Stack, "head_norms", lambda stack, stacked: true(stack, stacked).roll(1, -1))
    assert _passed(norms.norms("cpu", ("pointer",), ("fp32",), tmp_path)) == {False}


def test_a_kernel_that_mixes_another_thing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    true = kernels.fused_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        return true(q, k, v, mask, scale * 1.001)

    assert _passed(kernels.products("cpu")) == {True}
    monkeypatch.setattr(kernels, "fused_attention", wrong)
    assert False in _passed(kernels.products("cpu"))


def test_norms_at_the_loss_scale_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _passed(own_loop.own_loop("cpu", "fp16", tmp_path)) == {True}
    monkeypatch.setattr(recording, "listen", lambda _listener: lambda: None)  # nobody hears the scaler
    assert _passed(own_loop.own_loop("cpu", "fp16", tmp_path)) == {False}


def test_what_raises_has_failed_and_the_next_check_runs(tmp_path: Path) -> None:
    def breaks() -> Iterator[Line]:
        yield Line("first", "", True)
        raise torch.OutOfMemoryError("the device is full")

    def skips() -> Iterator[Line]:
        raise Skip("timm is not installed")
        yield

    report = Report("NVIDIA H100 80GB HBM3", {})
    report.run("second", breaks)
    report.run("third", skips)
    assert [(line.check, line.passed) for line in report.lines] == [("first", True), ("second", False), ("third", None)]
    assert [line.check for line in report.failed] == ["second"]
    assert report.write(tmp_path).name == "gpu-smoke-nvidia-h100-80gb-hbm3.json"
