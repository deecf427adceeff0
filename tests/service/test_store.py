"""Series as a reader sees them, on a real database."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import lifecycle, store

from .factories import claim, frame, make_run, train

pytestmark = [pytest.mark.django_db, pytest.mark.db]

NAMES = ("loss/total", "grad_norm/a/W_q", "grad_norm/a/W_q/head.0", "grad_norm/b/W_q")


@pytest.fixture
def run():
    run = make_run()
    held = claim(run).held
    for start in range(0, 20, 5):
        frames = [frame(start, start + 5, names=NAMES)]
        if start == 10:
            frames.append(
                store.Incoming("eval", ["eval/accuracy"], np.array([14]), np.array([1.5]), np.float32([[0.5]]))
            )
        lifecycle.commit(held, start, start + 5, frames)
    return run


def names(several: list[store.Series]) -> list[str]:
    return [series.name for series in several]


def test_one_star_stops_at_a_slash_and_two_cross_it(run) -> None:
    assert names(store.read([run.pk], ["grad_norm/*/W_q"])) == ["grad_norm/a/W_q", "grad_norm/b/W_q"]
    assert names(store.read([run.pk], ["grad_norm/**"])) == list(NAMES[1:])
    assert names(store.read([run.pk], ["loss/*", "eval/*"])) == ["loss/total", "eval/accuracy"]
    assert names(store.read([run.pk], ["loss"])) == []


def test_windows_are_inclusive_and_since_is_exclusive(run) -> None:
    def steps(**window: int) -> list[int]:
        (series,) = store.read([run.pk], ["loss/total"], **window)
        return series.steps.tolist()

    assert steps(from_step=3, to_step=6) == [3, 4, 5, 6]
    assert steps(since_step=17) == [18, 19]
    assert steps(since_step=19) == []
    assert steps(since_step=4, from_step=8, to_step=9) == [8, 9]


def test_reduced_series_say_so_and_count_everything(run) -> None:
    (series,) = store.read([run.pk], ["loss/total"], max_points=8)
    assert (series.count, series.exact, len(series.steps) <= 8) == (20, False, True)
    (whole,) = store.read([run.pk], ["loss/total"])
    assert (whole.count, whole.exact, whole.group) == (20, True, "train")


def test_many_runs_and_series_cost_a_constant_number_of_queries(run, django_assert_max_num_queries) -> None:
    other = make_run()
    train(claim(other).held, 0, 20)
    with django_assert_max_num_queries(3):
        assert len(store.read([run.pk, other.pk], ["**"])) == len(NAMES) + 1 + 2


def test_columns_that_change_between_attempts_start_a_new_version_and_read_as_one_series(run) -> None:
    run.refresh_from_db()
    held = lifecycle.Held(run.pk, run.fence)
    lifecycle.commit(held, 20, 22, [frame(20, 22, names=("loss/total", "lr"))])
    by_name = {series.name: series.steps.tolist() for series in store.read([run.pk], ["**"])}
    assert by_name["loss/total"] == list(range(22))
    assert by_name["lr"] == [20, 21]
    assert {info.name for info in store.catalogue(run.pk)} == {*NAMES, "lr", "eval/accuracy"}


def test_non_finite_values_are_kept_and_counted_but_never_a_minimum() -> None:
    run = make_run()
    steps = np.arange(4)
    values = np.float32([[np.nan], [np.inf], [2], [-np.inf]])
    lifecycle.commit(claim(run).held, 0, 4, [store.Incoming("train", ["loss/total"], steps, steps / 1.0, values)])
    (series,) = store.read([run.pk], ["loss/total"])
    assert series.nonfinite == 3
    np.testing.assert_array_equal(series.values, values[:, 0])
    headline = run.headlines.get()
    assert (headline.min, headline.max, headline.last, headline.nonfinite) == (2, 2, None, 3)


def test_a_heat_map_keeps_each_columns_greatest_value(run) -> None:
    grid = store.grid(run.pk, ["grad_norm/*/W_q"], columns=4)
    assert grid.names == ["grad_norm/a/W_q", "grad_norm/b/W_q"]
    assert grid.steps.tolist() == [0, 5, 10, 15]
    np.testing.assert_allclose(grid.values[0], [4.1, 9.1, 14.1, 19.1], rtol=1e-6)
    means = store.grid(run.pk, ["grad_norm/*/W_q"], columns=4, reduce="mean").values[0]
    np.testing.assert_allclose(means, [2.1, 7.1, 12.1, 17.1], rtol=1e-6)


def test_a_heat_map_of_nothing_is_empty(run) -> None:
    assert store.grid(run.pk, ["nothing/*"]).names == []
