"""A run goes on over the files that it began with, and over no others."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from experiments.spec import Spec, parse_spec
from experiments.spec.revision import REVISION
from tests.lab import coco_folder
from tests.lab.collected import Collected, tiny, train_collected
from workers.inspection.protocol import QuestionMessage
from workers.protocol import Checkpoint, Failure, Log, Notice, Orders, Started
from workers.trainer.data.digest import Inputs, digest_of, read_package, reading
from workers.trainer.data.errors import DataError
from workers.trainer.entry.loaded_models import Models
from workers.trainer.entry.orders import carry_out
from workers.trainer.recording.recorder import Recorder
from workers.trainer.tasks.hf.library import transformers
from workers.trainer.training.checkpoint import CheckpointError, check_inputs
from workers.trainer.training.inherit import checkpoint_notices
from workers.trainer.training.loop import Fork, Session

LETTERS = "the cat sat on the mat and saw the hat of the rat. " * 30
GREEK = LETTERS.translate(str.maketrans("abcdefhmnorstw", "αβψδεφημνορστω"))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ATTN_DATA_ROOT", str(folder))
    monkeypatch.setenv("ATTN_MODELS_ROOT", str(folder))
    return folder


def of_text(**changes: dict[str, Any]) -> Spec:
    return tiny("language", data={"path": "t.txt"}, **changes)


def of_pictures() -> Spec:
    coco = {"dataset": "coco", "path": "pictures", "canvas": 32, "val_share": 0.4}
    raw = tiny("segment").model_dump(mode="json")
    return parse_spec({**raw, "data": coco})


def last(sink: Collected) -> Path:
    return Path(sink.of(Checkpoint)[-1].path)


def stopped(spec: Spec, scratch: Path) -> Path:
    sink, _ = train_collected(spec, scratch, stop_after=3)
    return last(sink)


def refusal(spec: Spec, checkpoint: Path, scratch: Path) -> str:
    with pytest.raises(CheckpointError) as told:
        train_collected(spec, scratch, checkpoint=checkpoint)
    return str(told.value)


def test_a_resume_over_another_text_of_the_same_name_is_refused_and_goes_on_once_it_is_back(
    root: Path, tmp_path: Path
) -> None:
    (root / "t.txt").write_text(LETTERS)
    whole, _ = train_collected(of_text(), tmp_path / "whole")
    checkpoint = stopped(of_text(), tmp_path / "first")
    (root / "t.txt").write_text(GREEK)
    assert refusal(of_text(), checkpoint, tmp_path / "second").startswith(
        "t.txt is not the file that this run began with"
    )
    (root / "t.txt").write_text(LETTERS)
    rest, _ = train_collected(of_text(), tmp_path / "third", checkpoint=checkpoint)
    np.testing.assert_array_equal(rest.values("loss/total"), whole.values("loss/total")[3:])


def test_an_order_over_another_text_fails_as_a_fault_of_the_spec(root: Path, tmp_path: Path) -> None:
    (root / "t.txt").write_text(LETTERS)
    checkpoint = stopped(of_text(), tmp_path / "first")
    (root / "t.txt").write_text(LETTERS.replace("cat", "cow", 1))
    sink = Collected()
    orders = Orders(
        run=1, fence=1, spec=of_text().model_dump(mode="json"), scratch=str(tmp_path), checkpoint=str(checkpoint)
    )
    assert not carry_out(orders, sink, lambda: None)
    failure = sink.of(Failure)[0]
    assert failure.reason == "spec"
    assert "t.txt is not the file" in failure.message
    assert not sink.of(Started)


def test_the_digest_is_the_sum_of_the_file_as_the_system_tells_it(root: Path, tmp_path: Path) -> None:
    (root / "t.txt").write_text(LETTERS)
    started = train_collected(of_text(), tmp_path / "out")[0].of(Started)[0]
    assert started.inputs == {"t.txt": hashlib.sha256((root / "t.txt").read_bytes()).hexdigest()}
    assert len(started.data_digest) == 64


def test_what_is_made_by_rule_has_no_digest(tmp_path: Path) -> None:
    started = train_collected(tiny("language"), tmp_path)[0].of(Started)[0]
    assert (started.inputs, started.data_digest) == ({}, "")


def _moved_box(folder: Path) -> None:
    listing = json.loads((folder / "annotations.json").read_text())
    listing["annotations"][0]["segmentation"] = coco_folder.segmentation(4, 6, 18, 16, form=0)
    (folder / "annotations.json").write_text(json.dumps(listing))


def _painted(folder: Path) -> None:
    with Image.open(folder / "images" / "007.png") as opened:
        image = opened.convert("RGB")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(folder / "images" / "007.png")


def _exchanged(folder: Path) -> None:
    one, other = folder / "images" / "000.png", folder / "images" / "006.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_moved_box, "pictures/annotations.json is not the file"),
        (_painted, "pictures/images is not"),
        (_exchanged, "pictures/images is not"),
    ],
)
def test_a_resume_over_a_changed_folder_is_refused(
    root: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    coco_folder.write(root / "pictures")
    checkpoint = stopped(of_pictures(), tmp_path / "first")
    change(root / "pictures")
    assert named in refusal(of_pictures(), checkpoint, tmp_path / "second")


def test_a_folder_that_moved_to_another_worker_goes_on(root: Path, tmp_path: Path) -> None:
    """Neither the order of its files nor their times count, and what is not listed does not either."""
    coco_folder.write(root / "pictures")
    checkpoint = stopped(of_pictures(), tmp_path / "first")
    for file in sorted((root / "pictures" / "images").iterdir(), reverse=True):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    (root / "pictures" / "images" / "thumbs.db").write_bytes(b"x")
    _, done = train_collected(of_pictures(), tmp_path / "second", checkpoint=checkpoint)
    assert done.stopped is None


def _changed_on_the_way(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Every image is changed between the loading of the folder and step 1; those of step 0 are in memory by then."""
    recorder = Recorder(Collected(), lambda: 0.0)
    session = Session(of_pictures(), recorder, tmp_path)
    for file in (root / "pictures" / "images").iterdir():
        change(file)
    session.backward(1)


def _inverted(file: Path) -> None:
    with Image.open(file) as opened:
        other = np.asarray(opened.convert("RGB"))
    Image.fromarray(255 - other).save(file)


def _written_again(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def test_images_that_change_while_a_run_trains_end_it_by_name(root: Path, tmp_path: Path) -> None:
    """They are decoded when they are shown, long after their digest was told."""
    coco_folder.write(root / "pictures")
    with pytest.raises(DataError, match=r"pictures/images/\d+\.png: the file has changed since this attempt began"):
        _changed_on_the_way(root, tmp_path, _inverted)


def test_images_that_are_written_again_with_the_same_contents_are_trained_on(root: Path, tmp_path: Path) -> None:
    coco_folder.write(root / "pictures")
    _changed_on_the_way(root, tmp_path, _written_again)


def test_a_resume_over_other_pretrained_weights_is_refused(root: Path, tmp_path: Path) -> None:
    library = transformers()
    sizes = {"vocab_size": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = library.AutoConfig.for_model("gpt2", **sizes, **ends)
    library.AutoModelForCausalLM.from_config(config).save_pretrained(root / "small")
    raw = tiny("language").model_dump(mode="json") | {"task": "hf", "model": {"path": "small"}}
    spec = parse_spec(raw)
    checkpoint = stopped(spec, tmp_path / "first")
    weights = root / "small" / "model.safetensors"
    tensors = {name: tensor + 1e-3 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    assert "model.path small/model.safetensors is not the file" in refusal(spec, checkpoint, tmp_path / "second")


def test_a_fork_over_another_text_is_made_and_says_so(root: Path, tmp_path: Path) -> None:
    (root / "t.txt").write_text(LETTERS)
    checkpoint = stopped(of_text(), tmp_path / "first")
    (root / "t.txt").write_text(LETTERS + "A last word.")
    sink, _ = train_collected(of_text(), tmp_path / "second", checkpoint=checkpoint, fork=Fork(of_text()))
    notice: Notice = sink.of(Started)[0].notices[0]
    assert notice.kind == "other_data"
    assert "t.txt is not the file that its parent began with" in notice.text
    assert notice.text in [line.text for line in sink.of(Log)]


def test_a_fork_over_the_same_text_has_nothing_to_say(root: Path, tmp_path: Path) -> None:
    (root / "t.txt").write_text(LETTERS)
    checkpoint = stopped(of_text(), tmp_path / "first")
    sink, _ = train_collected(of_text(), tmp_path / "second", checkpoint=checkpoint, fork=Fork(of_text()))
    assert "other_data" not in [notice.kind for notice in sink.of(Started)[0].notices]


def test_an_inspection_does_not_read_a_checkpoint_trained_on_other_data(root: Path, tmp_path: Path) -> None:
    (root / "t.txt").write_text(LETTERS)
    checkpoint = stopped(of_text(), tmp_path / "first")
    (root / "t.txt").write_text(GREEK)
    spec = of_text().model_dump(mode="json")
    put = QuestionMessage(question=1, spec=spec, checkpoint=str(checkpoint), sha256="x", ask={}, most_bytes=2**20)
    with pytest.raises(CheckpointError, match=r"t\.txt is not the file that this run began with"):
        Models().get(put)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own, already imported."""
    folder = tmp_path / "own_code"
    (folder / "parts").mkdir(parents=True)
    for file in (folder / "__init__.py", folder / "parts" / "mixing.py"):
        file.write_text("HEADS = 2\n")
    module = ModuleType("own_code")
    module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "own_code", module)
    return folder


def _source() -> Inputs:
    with reading() as inputs:
        read_package("own_code.parts.mixing")
    return inputs


def test_an_edit_anywhere_in_a_package_makes_it_another(package: Path) -> None:
    before = _source()
    assert list(before) == ["package own_code"]
    (package / "notes.txt").write_text("x")
    assert _source() == before
    (package / "parts" / "mixing.py").write_text("HEADS = 4\n")
    assert digest_of(_source()) != digest_of(before)


def test_a_run_goes_on_over_edited_code_and_says_so(package: Path) -> None:
    before = {"inputs": _source()}
    (package / "parts" / "mixing.py").write_text("HEADS = 4\n")
    check_inputs(before, _source())
    (notice,) = checkpoint_notices(before | {"revision": REVISION}, _source(), "cpu", forked=False)
    assert "the code of package own_code is not what this run began with" in notice.text
