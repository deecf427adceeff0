"""The task `language`: where its text may come from, how it is cut, and what its last score says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.spec import LanguageSpec, TextData
from tests.lab.collected import tiny, train_collected
from workers.protocol import Failure, Orders
from workers.trainer.data.errors import DataError
from workers.trainer.data.roots import ROOT
from workers.trainer.data.tokens import text
from workers.trainer.entry.orders import carry_out
from workers.trainer.nets.tokens import causal
from workers.trainer.tasks.language import LanguageTask, unigram_loss

LINES = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv(ROOT, str(folder))
    return folder


def data(path: str | None = None, **changes: float) -> TextData:
    return TextData.model_validate({"dataset": "text", "path": path, "context": 16, **changes})


def test_any_utf8_file_below_the_root_is_read(root: Path) -> None:
    (root / "poems").mkdir()
    (root / "poems" / "李白.txt").write_text("\ufeff" + LINES.replace("\n", "\r\n"), encoding="utf-8")
    found = text.load(data("poems/李白.txt"))
    whole = "".join(found.characters[index] for part in found.parts.values() for index in part)
    assert whole == LINES
    assert len(found.parts["train"]) == pytest.approx(0.9 * len(LINES), abs=1)


def test_rare_characters_are_one(root: Path) -> None:
    (root / "few.txt").write_text("aaaabbbc" * 100 + "defghijklmnopqrs" * 30, encoding="utf-8")
    found = text.load(data("few.txt", characters=16))
    assert len(found.characters) == 16
    assert found.characters[:4] == ("�", "a", "b", "c")
    assert max(part.max() for part in found.parts.values()) == 15


@pytest.mark.parametrize(
    ("path", "told", "reason"),
    [
        ("../secret.txt", "outside the data root", "spec"),
        ("/etc/hostname", "outside the data root", "spec"),
        ("link.txt", "outside the data root", "spec"),
        ("missing.txt", "no such file", "spec"),
        ("folder", "no such file", "spec"),
        ("a\0b", "not a valid path", "spec"),
        ("latin1.txt", "not UTF-8 .byte 0xe9 at position 3", "error"),
        ("empty.txt", "too short", "error"),
        ("short.txt", "too short", "error"),
    ],
)
def test_a_text_that_cannot_be_used_fails_the_run_and_is_named(root: Path, path: str, told: str, reason: str) -> None:
    (root.parent / "secret.txt").write_text(LINES, encoding="utf-8")
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").mkdir()
    (root / "latin1.txt").write_bytes("café".encode("latin-1") * 300)
    (root / "empty.txt").touch()
    (root / "short.txt").write_text("few", encoding="utf-8")
    with pytest.raises(DataError, match=told) as caught:
        text.load(data(path))
    assert caught.value.reason == reason
    failure = _ordered(path, root)
    assert failure.reason == reason
    assert (path if path.isprintable() else repr(path)) in failure.message


def _ordered(path: str, scratch: Path) -> Failure:
    """What a worker hears when a run asks for this file."""
    said: list[object] = []
    raw = tiny("language", data={"path": path}).model_dump(mode="json")
    orders = Orders(run=1, fence=1, spec=raw, scratch=str(scratch))
    assert not carry_out(orders, lambda message, payload=b"": said.append(message), lambda: None)
    (failure,) = [message for message in said if isinstance(message, Failure)]
    return failure


def test_a_worker_without_a_root_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT, raising=False)
    with pytest.raises(DataError, match=r"poem.txt: this worker has no data root"):
        text.load(data("poem.txt"))


def test_the_text_made_by_rule_is_whole_sentences_and_always_the_same() -> None:
    made = text.generated()
    assert made.count("\n") == text.SENTENCES - 1
    assert "<" not in made
    text.generated.cache_clear()
    assert text.generated() == made


def test_windows_depend_on_the_index_alone_and_stay_inside() -> None:
    part = np.arange(100)
    many, some = (text.windows(part, "train", np.array(rows), 16) for rows in (range(500), [7, 2, 499]))
    assert (many[[7, 2, 499]] == some).all()
    assert (np.diff(many) == 1).all()
    assert (many.min(), many.max()) == (0, 99)


def test_stretches_cover_the_part_without_overlap() -> None:
    found = text.stretches(np.arange(100), 99, 9)
    assert found[:, :-1].flatten().tolist() == list(range(99))
    assert len(text.stretches(np.arange(1000), 5, 9)) == 5


def test_nothing_after_a_character_changes_its_prediction() -> None:
    spec = tiny("language")
    assert isinstance(spec, LanguageSpec)
    model = LanguageTask(spec, torch.device("cpu")).model
    first = torch.randint(0, 32, (1, 16, 1), generator=torch.Generator().manual_seed(0))
    second = first.clone()
    second[:, 9:] = (second[:, 9:] + 1) % 32
    before, after = (model(fields, causal(16, fields.device)) for fields in (first, second))
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


def test_frequency_alone_costs_the_entropy() -> None:
    train = np.repeat([0, 1], 10_000)
    assert unigram_loss(train, train, 2) == pytest.approx(np.log(2), rel=1e-4)


def test_a_short_training_beats_the_untrained_net(tmp_path: Path) -> None:
    spec = tiny("language", optimizer={"lr": 0.01}, train={"steps": 25, "batch_size": 8, "predictions": 1})
    sink, _ = train_collected(spec, tmp_path)
    scores = {name: float(values[-1]) for name, (_, values) in sink.series("test").items()}
    assert np.isfinite(list(scores.values())).all()
    assert scores["test/loss"] < scores["test/untrained/loss"]
