"""Sealing: what becomes blocks, when, and what a reader sees of it. test_store_model.py tries any sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import store
from experiments.models import Block, Frame, Group, Run, StepIndex
from experiments.store.blocks.cover import BLOCK, cover, level_for

from .factories import make_run

pytestmark = [pytest.mark.django_db, pytest.mark.db]

NAMES = ["loss/total", "lr", "grad_norm/a/W_q"]


class Model:
    """The plain list that the store is held against."""

    def __init__(self, run: Run, seed: int) -> None:
        self.run, self.random = run, np.random.default_rng(seed)
        self.steps = np.empty(0, np.int64)
        self.times = np.empty(0)
        self.values = np.empty((0, len(NAMES)), np.float32)

    def append(self, rows: int, *, even: bool = True) -> None:
        gaps = np.ones(rows, np.int64) if even else self.random.integers(1, 4, rows)
        steps = (self.steps[-1] if len(self.steps) else -1) + np.cumsum(gaps)
        times = (self.times[-1] if len(self.times) else 0.0) + np.cumsum(self.random.integers(1, 50, rows)) / 1000
        values = self.random.normal(size=(rows, len(NAMES))).astype(np.float32)
        odd = self.random.random(values.shape)
        values[odd < 0.001] = np.nan
        values[(odd > 0.001) & (odd < 0.0015)] = np.inf
        store.append(self.run.pk, [store.Incoming("train", NAMES, steps, times, values)])
        self.steps = np.concatenate([self.steps, steps])
        self.times = np.concatenate([self.times, times])
        self.values = np.concatenate([self.values, values])

    def truncate(self, step: int) -> None:
        store.truncate(self.run.pk, step)
        kept = self.steps < step
        self.steps, self.times, self.values = self.steps[kept], self.times[kept], self.values[kept]

    def seal(self, before: int | None = None, *, final: bool = False) -> None:
        group = Group.objects.get(run=self.run)
        while store.seal_next(group, 2**60 if before is None else before, final=final):
            pass

    def check(self, low: int | None = None, high: int | None = None, max_points: int = 10**9) -> None:
        inside = np.ones(len(self.steps), bool)
        if low is not None:
            inside &= self.steps >= low
        if high is not None:
            inside &= self.steps <= high
        several = store.read([self.run.pk], ["**"], from_step=low, to_step=high, max_points=max_points)
        assert [series.name for series in several] == NAMES
        for series in several:
            values = self.values[inside, NAMES.index(series.name)]
            self.check_one(series, self.steps[inside], self.times[inside], values, max_points)

    def check_one(self, series: store.Series, steps: Any, times: Any, values: Any, max_points: int) -> None:
        assert (series.count, series.nonfinite) == (len(steps), int((~np.isfinite(values)).sum()))
        assert len(series.steps) <= max(max_points, 5)
        at = np.searchsorted(steps, series.steps)
        assert np.array_equal(steps[at], series.steps), "every step is a real one, once"
        np.testing.assert_array_equal(values[at], series.values)
        np.testing.assert_allclose(times[at], series.times, atol=0.0011)
        finite, kept = values[np.isfinite(values)], series.values[np.isfinite(series.values)]
        if len(finite):
            assert (kept.min(), kept.max()) == (finite.min(), finite.max())
        if len(steps):
            assert (series.steps[0], series.steps[-1]) == (steps[0], steps[-1])
        assert np.isfinite(series.values).all() == np.isfinite(values).all()
        if max_points > len(steps):
            assert series.exact
            assert len(series.steps) == len(steps)


def test_a_long_series_is_read_from_high_blocks_and_keeps_its_spike() -> None:
    run, rows = make_run(), 17 * BLOCK + 500
    steps = np.arange(rows)
    values = np.zeros((rows, 1), np.float32)
    values[31_415] = 5
    store.append(run.pk, [store.Incoming("train", ["loss/total"], steps, steps / 100, values)])
    group = Group.objects.get(run=run)
    while store.seal_next(group, rows, final=True):
        pass
    assert sorted(Block.objects.values_list("level", flat=True)) == [1] * 18 + [2]
    (series,) = store.read([run.pk], ["loss/*"], max_points=900)
    assert series.steps[series.values == 5].tolist() == [31_415]
    assert (series.count, len(series.steps) <= 900, series.steps[-1]) == (rows, True, rows - 1)
    grid = store.grid(run.pk, ["loss/*"], columns=300)
    assert grid.values.shape[1] <= 300
    assert grid.values.max() == 5
    column = int(np.flatnonzero(grid.values[0] == 5)[0])
    assert grid.steps[column] <= 31_415 < grid.steps[column + 1]


def test_nothing_is_sealed_past_the_newest_checkpoint() -> None:
    model = Model(make_run(), 0)
    for rows in (BLOCK + 3, BLOCK + 2, BLOCK):  # a checkpoint always ends a frame
        model.append(rows)
    model.seal(2 * BLOCK + 5)
    assert StepIndex.objects.count() == 2
    assert [frame.first_row for frame in Frame.objects.all()] == [2 * BLOCK, 2 * BLOCK + 5]
    model.check()


def test_many_small_frames_of_a_slow_run_are_joined() -> None:
    model = Model(make_run(), 0)
    for _ in range(100):
        model.append(1)
    model.seal()
    assert Frame.objects.count() == 1
    model.check()


def test_reading_many_runs_costs_as_many_queries_as_reading_one(django_assert_max_num_queries) -> None:
    runs = [make_run() for _ in range(4)]
    for at, run in enumerate(runs):
        model = Model(run, at)
        model.append(3 * BLOCK)
        model.seal(final=True)
    with django_assert_max_num_queries(6):
        assert len(store.read([run.pk for run in runs], ["**"], max_points=500)) == 4 * len(NAMES)


@pytest.mark.parametrize("sealed", [0, 100, BLOCK, 5 * BLOCK + 7, 300 * BLOCK + 1, 16 * 16 * 16 * BLOCK])
def test_pieces_cover_every_row_once_and_in_order(sealed: int) -> None:
    random = np.random.default_rng(sealed)
    for _ in range(40):
        low, high = sorted(random.integers(0, sealed + 1, 2).tolist())
        for level in range(5):
            at = low
            for piece in cover(low, high, sealed, level):
                if piece.level == 0:
                    assert at == piece.number * BLOCK + piece.first
                    at = piece.number * BLOCK + piece.last
                else:
                    span = BLOCK * 16 ** (piece.level - 1)
                    assert (at, piece.level <= level) == (piece.number * span, True)
                    at = min(at + span, sealed)
            assert at == high


def test_the_level_is_the_coarsest_that_still_gives_enough_buckets() -> None:
    assert [level_for(rows, 250) for rows in (10, 3999, 4000, 63_999, 64_000, 10**7)] == [0, 0, 1, 1, 2, 3]


def test_a_succeeded_run_is_sealed_to_its_last_row_and_a_live_one_to_its_checkpoint() -> None:
    from experiments import lifecycle
    from experiments.maintenance.reconciler import seal_unsealed

    from .factories import SPEC, claim, frame

    run = make_run(spec={**SPEC, "train": {**SPEC["train"], "steps": 3 * BLOCK}})
    held = claim(run).held
    for at in range(3):
        lifecycle.commit(held, at * BLOCK, (at + 1) * BLOCK, [frame(at * BLOCK, (at + 1) * BLOCK)])
        if at == 0:
            lifecycle.publish_checkpoint(held, step=BLOCK, path="x", sha256="", size=1)
    lifecycle.seal(held)
    assert Group.objects.get(run=run).sealed == BLOCK
    assert seal_unsealed() == 0, "the run is still held"
    lifecycle.succeed(held)
    assert seal_unsealed() == 1
    assert not Frame.objects.exists()
    (series,) = store.read([run.pk], ["loss/total"], max_points=10**6)
    assert series.steps.tolist() == list(range(3 * BLOCK))
