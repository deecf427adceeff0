"""Stored maps: when they are due, that pooling keeps what a row sums to, and that the service reads them back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.spec import content_hash
from tests.lab.collected import tiny, train_collected
from workers.protocol import Artifact
from workers.trainer.inspection.maps import SIDE, due, groups_of, pooled, quantised


def test_maps_are_thinned_to_about_twenty_a_run_unless_told() -> None:
    long = tiny("roles", train={"steps": 10_000}, record={"probe_every": 50})
    steps = [step for step in range(10_000) if due(long, step)]
    assert 15 <= len(steps) <= 21
    assert steps[-1] == 9999
    assert all(step % 50 == 0 for step in steps[:-1])
    told = tiny("roles", train={"steps": 100}, record={"maps_every": 30})
    assert [step for step in range(100) if due(told, step)] == [0, 30, 60, 90, 99]
    assert not any(due(tiny("roles", record={"maps_every": 0}), step) for step in range(6))


def test_a_spec_that_says_nothing_about_maps_keeps_its_hash() -> None:
    assert content_hash(tiny("roles")) == content_hash(tiny("roles", record={"maps_every": None}))


def test_pooled_rows_still_sum_to_one_and_patches_stay_neighbours() -> None:
    weights = torch.rand(2, 256, 200).softmax(-1)
    patches, words = groups_of(256, "patch", 16, SIDE), groups_of(200, "text", 16, SIDE)
    small = pooled(weights, patches, words)
    assert small.shape == (2, 64, 64)
    torch.testing.assert_close(small.sum(-1), torch.ones(2, 64))
    assert patches.view(16, 16)[:4, :4].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [8, 8, 9, 9], [8, 8, 9, 9]]


def test_quantised_weights_are_off_by_half_a_step_at_most() -> None:
    weights = torch.rand(3, 5, 7)
    small, scale = quantised(weights)
    np.testing.assert_allclose(small * scale[:, None, None] / 255, weights, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("task", ["roles", "segment", "language"])
def test_a_run_leaves_maps_of_the_same_samples_at_every_chosen_step(tmp_path: Path, task: str) -> None:
    sink, _ = train_collected(tiny(task, record={"maps_every": 3}), tmp_path)
    files = [artifact for artifact in sink.of(Artifact) if artifact.kind == "map"]
    maps = [file for file in files if file.name == "maps"]
    assert [file.step for file in maps] == [0, 3, 5]
    told = [file for file in files if file.name == "samples"]
    assert {file.step for file in told} == {None}
    assert [len(json.loads(Path(file.path).read_text())) for file in told] == [4, 4, 4]
    assert len({file.path for file in files}) == len(files)  # the supervisor takes each file away once it is stored
    for file in maps:
        with np.load(io.BytesIO(Path(file.path).read_bytes()), allow_pickle=False) as arrays:
            for site in file.meta["sites"]:
                small = arrays[f"0/{site['name']}"]
                assert small.dtype == np.uint8
                assert len(small) == site["heads"]
                assert max(small.shape[1:]) <= SIDE
