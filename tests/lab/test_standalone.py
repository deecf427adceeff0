"""A run with no service at all, and that it needs neither Django nor Celery."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from experiments.spec import resolved
from experiments.spec.yaml_text import load
from experiments.submissions.submission import plan
from tests.lab.collected import tiny
from workers.trainer.entry import standalone

_NOTHING_OF_THE_SERVICE = """
import sys
import workers.trainer.entry.spare, workers.trainer.entry.standalone
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
    assert "line 4: duplicate key 'optimizer'" in capsys.readouterr().err
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


SHORT = {"task": "pointer", "data": {"dataset": "pointer"}, "train": {"steps": 2, "predictions": 0}}
SHORT |= {"resources": {"threads": 1}, "record": {"finals": False}}


def run_of(tmp_path: Path, content: dict[str, Any], out: str = "out") -> int:
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(content))
    return standalone.main([str(tmp_path / "file.yaml"), "--out", str(tmp_path / out)])


def test_a_body_of_rest_means_the_run_that_rest_makes_of_it(tmp_path: Path) -> None:
    body = {"name": "x", "spec": SHORT, "overrides": {"optimizer": {"lr": 0.5}}, "seeds": [3], "notes": "why"}
    body |= {"matrix": {"model.attention.variant": ["no_q"]}}
    assert run_of(tmp_path, body) == 0
    (wanted,) = plan(body).runs
    assert load((tmp_path / "out" / "spec.yaml").read_text()) == resolved(wanted.spec)
    assert (wanted.spec.optimizer.lr, wanted.seed, wanted.spec.model.attention.variant) == (0.5, 3, "no_q")
    assert "no effect without the service: notes" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seeds": [3, 4]}, "seeds: makes 2 runs"),
        ({"matrix": {"optimizer.lr": [0.1, 0.2]}}, "matrix: makes 2 runs"),
        ({"overrides": {"optimizer.lrr": 1}}, "did you mean 'lr'"),
        ({"ovrrides": {}}, "did you mean 'overrides'"),
        ({"preset": "why-q", "spec": None}, "makes 152 runs"),
        ({"preset": "why-r", "spec": None}, "did you mean 'why-q'"),
        ({"title": {"en": "x", "zh": "x"}, "clame": 1}, "clame"),
    ],
)
def test_what_a_body_asks_for_besides_one_run_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], told: str
) -> None:
    assert run_of(tmp_path, {"spec": SHORT, **more}) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_preset_file_has_besides_its_spec_is_told(tmp_path: Path) -> None:
    title, claim = {"en": "x", "zh": "x"}, {"en": "y", "zh": "y"}
    preset = {"name": "p", "title": title, "claim": claim, "section": "1", "minutes": 1, "order": 1, "spec": SHORT}
    assert run_of(tmp_path, {**preset, "matrix": {"optimizer.lr": [1, 2]}, "seeds": [8, 9]}) == 0
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "only the preset's spec is trained, with seed 0; left out: the matrix (optimizer.lr); the seeds 8, 9" in log


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_of(tmp_path, SHORT) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    other = {**SHORT, "seed": 1}
    for more in ([], ["--checkpoint", str(tmp_path / "out" / "checkpoint-00000002.safetensors")]):
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(other))
        assert standalone.main([str(tmp_path / "file.yaml"), "--out", str(tmp_path / "out"), *more]) == 2
        assert "is not an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before
    (tmp_path / "new").mkdir()
    assert run_of(tmp_path, other, "new") == 0
