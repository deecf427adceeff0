"""Histograms of gradients and weights: counted right, and not too many of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from tests.lab.collected import tiny, train_collected
from workers.protocol import Artifact
from workers.trainer.recording.histograms import KEPT, counts, due


def test_entries_are_counted_by_magnitude_and_none_is_lost() -> None:
    found = counts(torch.tensor([0.0, -1.5, 1.5, 1e-11, 1e-9, 2000.0, math.inf, -math.nan])).tolist()
    below, *bins, above, broken = found
    assert (below, above, broken) == (2, 1, 2)
    assert len(bins) == 48
    assert {at: count for at, count in enumerate(bins) if count} == {4: 1, 40: 2}  # 1e-9 and ±1.5
    assert sum(found) == 8


def test_a_long_run_keeps_no_more_than_a_bounded_number() -> None:
    for steps, every in ((10, 1), (1000, 100), (100_000, 10), (12_345, 7)):
        kept = [step for step in range(steps) if (step % every == 0 or step + 1 == steps) and due(step, steps, every)]
        assert kept[0] == 0
        assert kept[-1] == steps - 1
        assert len(kept) <= KEPT + 1


def test_probes_of_a_run_write_them_for_every_matrix(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(), tmp_path)
    files = [each for each in sink.of(Artifact) if each.name == "histograms"]
    assert [each.step for each in files] == [0, 2, 4, 5]
    found = json.loads(Path(files[-1].path).read_text())["counts"]
    sites = [f"encoder.{layer}.self/{name}" for layer in (0, 1) for name in ("W_q", "W_k", "W_v", "W_o")]
    assert set(found) == {f"{what}/{name}" for what in ("gradient", "weight") for name in sites}
    assert all(sum(row) == 256 for row in found.values())
    off, _ = train_collected(tiny(record={"histograms": False}), tmp_path / "off")
    assert not off.of(Artifact)
