"""A run with no service at all, and that it needs neither Django nor Celery."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from experiments.spec import resolved
from tests.lab.collected import tiny
from workers.trainer import standalone

_NOTHING_OF_THE_SERVICE = """
import sys
import workers.trainer.spare, workers.trainer.standalone
strangers = {"django", "celery", "rest_framework", "kombu"} & set(sys.modules)
sys.exit(f"imported {strangers}" if strangers else 0)
"""


def test_the_trainer_imports_nothing_of_the_service() -> None:
    done = subprocess.run([sys.executable, "-c", _NOTHING_OF_THE_SERVICE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def _ctrl_c_as_before() -> Iterator[None]:
    """A standalone run takes over Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_a_section_that_stands_twice_in_a_file_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "task: pointer\ndata: {dataset: pointer}\noptimizer: {lr: 0.5}\noptimizer: {clip_norm: 1.0}\n"
    (tmp_path / "spec.yaml").write_text(text)
    assert standalone.main([str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "line 4: 'optimizer' stands there twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_run_from_a_file_leaves_frames_checkpoints_pictures_and_a_log(tmp_path: Path, task: str) -> None:
    spec_file, out = tmp_path / "spec.yaml", tmp_path / "out"
    spec_file.write_text(yaml.safe_dump(resolved(tiny(task, train={"predictions": 2}))))
    assert standalone.main([str(spec_file), "--out", str(out)]) == 0
    with pa.ipc.open_stream(out / "train.arrow") as reader:
        table = reader.read_all()
    assert table["step"].to_pylist() == list(range(6))
    names = table.schema.metadata[b"names"].decode().split("\n")
    assert len(table["values"][0]) == len(names)
    assert "grad_norm/encoder.0.self/W_q/head.1" in names
    assert sorted(path.name for path in out.glob("*.safetensors")) == [
        "checkpoint-00000003.safetensors",
        "checkpoint-00000006.safetensors",
    ]
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 4
    assert all(Image.open(picture).size[1] > 256 for picture in pictures)
    assert "result after 6 steps" in (out / "log.txt").read_text()


def test_a_misspelt_field_is_named_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec_file = tmp_path / "spec.yaml"
    spec_file.write_text("task: classify\ndata: {dataset: digits}\ntrain: {step: 3}\n")
    assert standalone.main([str(spec_file), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "train.step" in said
    assert "did you mean 'steps'" in said
    assert not (tmp_path / "out").exists()
