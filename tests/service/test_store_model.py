"""Any sequence of frames, seals, checkpoints, truncations, crashes and reads equals a plain list (hypothesis)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from experiments import store
from experiments.models import Frame, Group, Headline
from experiments.store.blocks.cover import BLOCK
from experiments.store.readers.history import history

from .factories import make_run

pytestmark = [pytest.mark.django_db, pytest.mark.db]

COLUMNS = {"train": ["loss/total", "grad_norm/a/W_q"], "eval": ["eval/accuracy"]}
NEWER = {"train": ["loss/total", "lr"], "eval": ["eval/accuracy"]}  # another attempt may record other series
# Frames of one row, of a flush, around a block's edge, of several blocks, and past the first cross-block level.
LENGTHS = st.sampled_from([1, 2, 7, 300, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5, 16 * BLOCK + 3])
MOST = 24 * BLOCK
SEEDS = st.integers(0, 2**32 - 1)
POINTS = st.sampled_from([5, 8, 60, 1000, 10**9])


class Crash(Exception):
    """The process ends here; its transaction is rolled back by the database."""


@contextmanager
def dying_after(statements: int) -> Iterator[None]:
    """A transaction that dies before one of its statements, or before its commit where it has fewer."""
    left = iter(range(statements))

    def count(execute: Any, *call: Any) -> Any:
        if next(left, None) is None:
            raise Crash
        return execute(*call)

    try:
        with transaction.atomic():
            with connection.execute_wrapper(count):
                yield
            raise Crash
    except Crash:
        pass


class Past:
    """What one group has recorded, as plain arrays: a row of `values` a step, a column a name; NaN is a value too."""

    def __init__(self) -> None:
        self.steps = np.empty(0, np.int64)
        self.times = np.empty(0)
        self.values: dict[str, Any] = {}

    def add(self, frame: store.Incoming) -> None:
        """A column that a row lacks holds None there."""
        before = len(self.steps)
        self.steps = np.concatenate([self.steps, frame.steps])
        self.times = np.concatenate([self.times, frame.times])
        for name in {*self.values, *frame.names}:
            old = self.values.get(name, np.full(before, None))
            new = frame.values[:, frame.names.index(name)] if name in frame.names else np.full(len(frame.steps), None)
            self.values[name] = np.concatenate([old, new.astype(object)])

    def cut(self, step: int) -> None:
        kept = self.steps < step
        self.steps, self.times = self.steps[kept], self.times[kept]
        self.values = {name: column[kept] for name, column in self.values.items()}

    def of(self, name: str, low: int, high: int) -> tuple[Any, Any, Any]:
        """Steps, times and values of a series in a window."""
        column = self.values[name]
        have = np.array([value is not None for value in column], bool) & (self.steps >= low) & (self.steps <= high)
        return self.steps[have], self.times[have], column[have].astype(np.float32)


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.run = make_run()
        self.past = {group: Past() for group in COLUMNS}
        self.columns = dict(COLUMNS)
        self.step = 0  # of the next row of any group: one clock for all, as a training loop has
        self.checkpoint, self.snapshot = 0, b""

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        """With something to seal and to take back."""
        self.random = np.random.default_rng(seed)
        if seed % 3:
            self.append("train", 2 * BLOCK + 5, bool(seed % 2), True)
            self.publish_checkpoint(True)

    def _frame(self, group: str, rows: int, even: bool, odd: bool) -> store.Incoming:
        gaps = np.ones(rows, np.int64) if even else self.random.integers(1, 4, rows)
        steps = self.step - 1 + np.cumsum(gaps)
        values = self.random.normal(size=(rows, len(self.columns[group]))).astype(np.float32)
        if odd:
            draw = self.random.random(values.shape)
            values[draw < 0.01] = np.nan
            values[(draw > 0.01) & (draw < 0.015)] = np.inf
            values[(draw > 0.015) & (draw < 0.02)] = -np.inf
        return store.Incoming(group, self.columns[group], steps, steps / 20.0, values)

    @precondition(lambda self: self.step < MOST)
    @rule(group=st.sampled_from(["train", "train", "eval"]), rows=LENGTHS, even=st.booleans(), odd=st.booleans())
    def append(self, group: str, rows: int, even: bool, odd: bool) -> None:
        frame = self._frame(group, rows, even, odd)
        store.append(self.run.pk, [frame])
        self.past[group].add(frame)
        self.step = int(frame.steps[-1]) + 1

    @precondition(lambda self: self.step < MOST)
    @rule(many=st.integers(2, 80))
    def append_many_small_frames(self, many: int) -> None:
        for _ in range(many):
            self.append("eval", 1, True, False)

    @rule(rows=LENGTHS, statements=st.integers(0, 12))
    def append_and_crash(self, rows: int, statements: int) -> None:
        frame = self._frame("train", rows, True, False)
        with dying_after(statements):
            store.append(self.run.pk, [frame])

    @rule(sealed=st.booleans())
    def publish_checkpoint(self, sealed: bool) -> None:
        self.checkpoint, self.snapshot = self.step, store.snapshot(self.run.pk)
        if sealed:
            self.seal()

    @rule()
    def seal(self) -> None:
        for group in Group.objects.filter(run=self.run):
            while store.seal_next(Group.objects.get(pk=group.pk), self.checkpoint):
                pass

    @rule(statements=st.integers(0, 25), final=st.booleans())
    def seal_and_crash(self, statements: int, final: bool) -> None:
        for group in Group.objects.filter(run=self.run):
            with dying_after(statements):
                store.seal_next(Group.objects.get(pk=group.pk), self.checkpoint, final=final)

    @rule(statements=st.none() | st.integers(0, 12))
    def resume(self, statements: int | None) -> None:
        """What a retry does: back to the checkpoint, possibly dying in between once before."""
        if statements is not None:
            with dying_after(statements):
                self._back(self.checkpoint)
        self._back(self.checkpoint)
        self._cut(self.checkpoint)

    def _back(self, step: int) -> None:
        store.truncate(self.run.pk, step)
        store.restore(self.run.pk, self.snapshot)

    def _cut(self, step: int) -> None:
        self.step = step
        for past in self.past.values():
            past.cut(step)

    @rule(share=st.floats(0, 1))
    def fall_back_to_an_older_checkpoint(self, share: float) -> None:
        """The newest file was damaged: the run goes on from before what has been sealed."""
        self.checkpoint = int(self.step * share) if share < 0.9 else 0
        self.snapshot = b""
        self._back(self.checkpoint)
        self._cut(self.checkpoint)
        # Headline state of that moment, which a checkpoint would have held; here only points are compared after it.
        self.forgotten = True

    forgotten = False

    @rule()
    def record_other_series(self) -> None:
        self.columns = dict(NEWER if self.columns["train"] == COLUMNS["train"] else COLUMNS)

    @rule(points=POINTS, low=st.floats(0, 1), high=st.floats(0, 1), whole=st.booleans())
    def read(self, points: int, low: float, high: float, whole: bool) -> None:
        first, last = (-1, 2**60) if whole else sorted((int(low * self.step), int(high * self.step)))
        window = {} if whole else {"from_step": first, "to_step": last}
        series_by_name = {
            series.name: series for series in store.read([self.run.pk], ["**"], max_points=points, **window)
        }
        for past in self.past.values():
            for name in past.values:
                check(series_by_name.get(name), *past.of(name, first, last), points)

    @rule(share=st.floats(0, 1))
    def read_since(self, share: float) -> None:
        since = int(self.step * share) - 1
        series_by_name = {
            series.name: series for series in store.read([self.run.pk], ["**"], max_points=10**9, since_step=since)
        }
        for past in self.past.values():
            for name in past.values:
                check(series_by_name.get(name), *past.of(name, since + 1, 2**60), 10**9)

    @rule()
    def export(self) -> None:
        rows = list(history(self.run.pk, ["**"]).rows())
        for group, past in self.past.items():
            steps = np.concatenate([np.empty(0, np.int64), *(chunk.steps for chunk in rows if chunk.group == group)])
            np.testing.assert_array_equal(steps, past.steps)
            for name in past.values:
                told = [
                    chunk.values[chunk.names.index(name)]
                    for chunk in rows
                    if chunk.group == group and name in chunk.names
                ]
                values = np.concatenate([np.empty(0, np.float32), *told])
                np.testing.assert_array_equal(values, past.of(name, -1, 2**60)[2])

    @rule(columns=st.sampled_from([1, 3, 40, 400]))
    def look_at_the_heat_map(self, columns: int) -> None:
        grid = store.grid(self.run.pk, ["loss/*"], columns=columns)
        if "loss/total" not in self.past["train"].values or not len(self.past["train"].steps):
            assert not len(grid.steps)
            return
        steps, _, values = self.past["train"].of("loss/total", -1, 2**60)
        assert len(grid.steps) <= columns
        edges = np.searchsorted(steps, np.append(grid.steps, steps[-1] + 1))
        for cell, (start, end) in zip(grid.values[0], pairwise(edges), strict=True):
            inside = values[start:end][np.isfinite(values[start:end])]
            assert (cell == inside.max()) if len(inside) else np.isnan(cell)

    @rule()
    def compare_headlines(self) -> None:
        if self.forgotten:
            return
        rows = {row.key: row for row in Headline.objects.filter(run=self.run)}
        steps, _, values = self._train_version()
        if not len(steps):
            return
        finite, row = values[np.isfinite(values)], rows["loss/total"]
        assert (row.count, row.nonfinite) == (len(values), len(values) - len(finite))
        assert (row.min, row.max) == ((finite.min(), finite.max()) if len(finite) else (None, None))
        assert row.last == (values[-1] if np.isfinite(values[-1]) else None)

    def _train_version(self) -> tuple[Any, Any, Any]:
        """The points of the newest version of the group: its headline values are of these alone."""
        past = self.past["train"]
        if "loss/total" not in past.values or not len(past.steps):
            return np.empty(0, np.int64), None, np.empty(0, np.float32)
        if Group.objects.filter(run=self.run, name="train").count() > 1:
            return np.empty(0, np.int64), None, np.empty(0, np.float32)
        return past.of("loss/total", -1, 2**60)

    def teardown(self) -> None:
        """Whatever happened: once all is sealed, no frame is left and every point is there."""
        for group in Group.objects.filter(run=self.run):
            while store.seal_next(Group.objects.get(pk=group.pk), 2**60, final=True):
                pass
        assert not Frame.objects.filter(group__run=self.run).exists()
        if hasattr(self, "random"):
            self.read(1000, 0, 1, True)
            self.export()
        self.run.delete()


def check(series: store.Series | None, steps: Any, times: Any, values: Any, points: int) -> None:
    """Real points only, each once and in order; both ends, the extremes and the non-finite are among them."""
    if series is None:
        assert not len(steps)
        return
    assert (series.count, series.nonfinite) == (len(steps), int((~np.isfinite(values)).sum()))
    at = np.searchsorted(steps, series.steps)
    np.testing.assert_array_equal(steps[at], series.steps)
    assert (np.diff(series.steps) > 0).all()
    np.testing.assert_array_equal(values[at], series.values)
    np.testing.assert_allclose(times[at], series.times, atol=0.0011)
    finite, kept = values[np.isfinite(values)], series.values[np.isfinite(series.values)]
    if len(finite):
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    if len(steps):
        assert (series.steps[0], series.steps[-1]) == (steps[0], steps[-1])
    assert np.isfinite(series.values).all() == np.isfinite(values).all()
    assert series.exact == (len(series.steps) == len(steps))


def test_any_sequence_of_writes_seals_truncations_crashes_and_reads_equals_a_plain_list() -> None:
    patient = settings(
        max_examples=30,
        stateful_step_count=25,
        database=None,
        phases=[Phase.generate],  # add Phase.shrink to look into a failure: that takes minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Store, settings=patient)
