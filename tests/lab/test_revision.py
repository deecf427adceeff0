"""Training changes only together with its revision, and nothing goes on across revisions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from experiments.spec.revision import REVISION
from tests.lab import curves
from tests.lab.collected import tiny, train_collected
from workers.protocol import Checkpoint, Started
from workers.trainer.training.checkpoint import CheckpointError
from workers.trainer.training.loop import Fork

TOLERANCE = 2e-4  # relative: kernels of another processor or version of torch round otherwise; measured below 2e-5
WHAT_TO_DO = """
{name}: {series} is {found}, and revision {revision} trained to {pinned}.
The same spec trains to other numbers now. If that is meant:
  1. raise REVISION in experiments/spec/revision.py and say there what changed (once a release);
  2. write the curves anew: .venv/bin/python -m tests.lab.curves
Runs of different revisions are not pooled, and none goes on across them. If it is not meant, it is a fault."""


@pytest.mark.parametrize("name", curves.WAYS)
def test_small_trainings_are_those_of_their_revision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_DATA_ROOT", "")  # put back afterwards
    revision, pinned = curves.pinned()
    assert revision == REVISION, "the revision was raised: write the curves anew with `python -m tests.lab.curves`"
    found = curves.curves(curves.specs()[name])
    assert found.keys() == pinned[name].keys()
    for series, values in found.items():
        same = np.allclose(values, pinned[name][series], rtol=TOLERANCE, atol=1e-6)
        told = {"name": name, "series": series, "found": values, "pinned": pinned[name][series]}
        assert same, WHAT_TO_DO.format(revision=revision, **told)


def _rewritten(path: Path, **changes: object) -> Path:
    """The checkpoint with other facts; None takes one away."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {})["attnservice"]) | changes
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    facts = {name: value for name, value in facts.items() if value is not None}
    save_file(tensors, path.with_name("rewritten.safetensors"), {"attnservice": json.dumps(facts)})
    return path.with_name("rewritten.safetensors")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    sink, _ = train_collected(tiny("pointer"), tmp_path / "first", stop_after=3)
    return Path(sink.of(Checkpoint)[-1].path)


@pytest.mark.parametrize(("revision", "named"), [(REVISION + 1, str(REVISION + 1)), (None, "1")])
def test_a_resume_across_revisions_is_refused_by_name(
    tmp_path: Path, checkpoint: Path, revision: int | None, named: str
) -> None:
    with pytest.raises(CheckpointError, match=f"training revision {named}, and this is revision {REVISION}"):
        train_collected(tiny("pointer"), tmp_path, checkpoint=_rewritten(checkpoint, revision=revision))


def test_a_fork_across_revisions_is_made_and_says_so(tmp_path: Path, checkpoint: Path) -> None:
    old, spec = _rewritten(checkpoint, revision=None), tiny("pointer")
    sink, _ = train_collected(spec, tmp_path, checkpoint=old, fork=Fork(spec))
    assert "other_revision" in [notice.kind for notice in sink.of(Started)[0].notices]


def test_a_checkpoint_that_does_not_know_its_data_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTN_DATA_ROOT", str(tmp_path))
    (tmp_path / "t.txt").write_text("what is known of a cat, a dog and my quick fox? " * 80)
    spec = tiny("language", data={"path": "t.txt"})
    sink, _ = train_collected(spec, tmp_path / "first", stop_after=3)
    old = _rewritten(Path(sink.of(Checkpoint)[-1].path), inputs=None)
    sink, done = train_collected(spec, tmp_path / "second", checkpoint=old)
    assert done.stopped is None
    assert [notice.kind for notice in sink.of(Started)[0].notices] == ["unknown_data"]
