"""Frames survive the wire, the store's blob, and the reduction to what a chart shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.store.blocks import codec
from experiments.store.headline import Stats
from experiments.store.readers.downsample import picks
from workers import frames

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def blocks(draw: st.DrawFn) -> codec.Table:
    rows, series = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    gaps = draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows))
    steps = np.cumsum(gaps).astype(np.int64) + draw(st.integers(-1, 10**9))
    times = np.cumsum(draw(st.lists(st.integers(0, 10_000), min_size=rows, max_size=rows))) / 1000.0
    values = draw(hnp.arrays(np.float32, (series, rows), elements=floats))
    return codec.Table(steps, times, values)


@given(blocks())
def test_a_block_comes_back_bit_for_bit_with_times_to_the_millisecond(block: codec.Table) -> None:
    back = codec.decode(codec.encode(block))
    assert np.array_equal(back.steps, block.steps)
    assert back.values.tobytes() == block.values.tobytes()
    np.testing.assert_allclose(back.times, block.times, atol=6e-4)


@given(blocks())
def test_a_frame_comes_back_from_the_wire_bit_for_bit(block: codec.Table) -> None:
    frame = frames.Frame(block.steps, block.times, np.ascontiguousarray(block.values.T))
    back = frames.decode(frames.encode(frame))
    assert np.array_equal(back.steps, frame.steps)
    assert np.array_equal(back.times, frame.times)
    assert back.values.tobytes() == frame.values.tobytes()


@given(blocks())
def test_a_cut_block_and_one_of_another_format_are_errors_and_never_other_numbers(block: codec.Table) -> None:
    data = codec.encode(block)
    for broken in (b"", data[:10], b"x" + data[1:], data[:-1]):
        with pytest.raises(ValueError):
            codec.decode(broken)


def test_steps_that_do_not_rise_are_refused() -> None:
    for steps in ([], [3, 3], [3, 2]):
        block = codec.Table(np.array(steps, np.int64), np.zeros(len(steps)), np.zeros((1, len(steps)), np.float32))
        with pytest.raises(ValueError, match="rise"):
            codec.encode(block)


@given(hnp.arrays(np.float32, st.integers(1, 500), elements=floats), st.integers(5, 60))
def test_reduction_keeps_ends_extremes_and_a_sign_of_what_is_not_finite(values: np.ndarray, limit: int) -> None:
    kept = picks(values, limit)
    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    finite = values[np.isfinite(values)]
    if len(finite):
        chosen = values[kept][np.isfinite(values[kept])]
        assert (chosen.min(), chosen.max()) == (finite.min(), finite.max())
    assert np.isfinite(values).all() == np.isfinite(values[kept]).all()


def test_every_single_spike_of_a_long_series_survives() -> None:
    values = np.zeros(100_000, np.float32)
    spikes = np.arange(137, 100_000, 997)
    values[spikes] = 5
    assert (values[picks(values, 1000)] == 5).sum() >= len(spikes) - 2  # two may share a bucket


@given(st.lists(blocks(), min_size=1, max_size=4))
def test_headline_values_equal_those_of_the_whole_history(parts: list[codec.Table]) -> None:
    series = min(len(part.values) for part in parts)
    stats, offset, steps, values = Stats.empty(series), 0, [], []
    for part in parts:
        moved = part.steps - part.steps[0] + offset
        offset = int(moved[-1]) + 1
        stats = Stats.load(stats.dump(), series)
        stats.add(moved, part.values[:series])
        steps.append(moved)
        values.append(part.values[:series])
    whole, at = np.concatenate(values, axis=1), np.concatenate(steps)
    for row in range(series):
        finite = np.isfinite(whole[row])
        assert stats.count[row] == whole.shape[1]
        assert stats.nonfinite[row] == (~finite).sum()
        assert stats.last_step[row] == at[-1]
        if finite.any():
            assert stats.low[row] == whole[row][finite].min()
            assert stats.high[row] == whole[row][finite].max()
            assert whole[row][at == stats.low_step[row]][0] == stats.low[row]
        else:
            assert np.isnan(stats.low[row])
