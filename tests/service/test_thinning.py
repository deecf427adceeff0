"""Retention thins old series to real points of a coarser level: no spike is lost, and every reader is told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from experiments import lifecycle, store
from experiments.maintenance import retention
from experiments.models import Block, Event, Group, Project, Run
from experiments.states import State
from experiments.store.blocks.cover import BLOCK
from experiments.store.readers.bands import bands
from experiments.store.readers.history import Changed, history

from .factories import make_project, make_run, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.db]

NAMES = ["loss/total", "grad_norm/a/W_q", "grad_norm/a/W_q/head.0", "grad_norm/a/W_q/head.1"]
THIN = (2, 3)  # the columns that the standing rule means
EVERYTHING = 2**62


class Past:
    """A run that ended long ago, and what it recorded as plain arrays."""

    def __init__(self, rows: int, *, level: int = 1, state: State = State.SUCCEEDED, even: bool = True) -> None:
        self.project = make_project()
        Project.objects.filter(pk=self.project.pk).update(thin_days=30, thin_level=level)
        self.project.refresh_from_db()
        self.run = make_run(self.project)
        random = np.random.default_rng(rows)
        self.steps = np.arange(rows) if even else np.cumsum(random.integers(1, 4, rows))
        self.values = random.normal(size=(rows, len(NAMES))).astype(np.float32)
        draw = random.random(self.values.shape)
        self.values[draw < 0.0005] = np.nan
        self.values[(draw > 0.0005) & (draw < 0.001)] = -np.inf
        self.values[rows // 3, 2] = 99
        self._kept: dict[tuple[int, int], set[int]] = {}
        for low in range(0, rows, 10_000):
            cut = slice(low, low + 10_000)
            frame = store.Incoming("train", NAMES, self.steps[cut], self.steps[cut] / 10, self.values[cut])
            store.append(self.run.pk, [frame])
        if state == State.SUCCEEDED:
            while store.seal_next(self.group, EVERYTHING, final=True):
                pass
        Run.objects.filter(pk=self.run.pk).update(state=state, finished=Now() - timedelta(days=31))

    @property
    def group(self) -> Group:
        return Group.objects.get(run=self.run)

    def read(self, **asked: Any) -> dict[str, store.Series]:
        return {series.name: series for series in store.read([self.run.pk], ["**"], **asked)}

    def kept(self, column: int, level: int) -> set[int]:
        """Rows that thinning has to leave, by the plainest means: level by level where complete blocks are."""
        if (column, level) in self._kept:
            return self._kept[column, level]
        kept = self._kept[column, level] = set[int]()
        rows, at = len(self.steps), 0
        while at < rows:
            own = level
            while own > 1 and (at % (BLOCK * 16 ** (own - 1)) or at + BLOCK * 16 ** (own - 1) > rows):
                own -= 1
            end = min(at + BLOCK * 16 ** (own - 1), rows)
            for first in range(at, end, 16**own):
                kept |= _points(self.values[first : min(first + 16**own, end), column], first)
            at = end
        return kept


def _points(values: Any, first: int) -> set[int]:
    finite = np.flatnonzero(np.isfinite(values))
    odd = np.flatnonzero(~np.isfinite(values))[:1]
    extremes = [finite[values[finite].argmin()], finite[values[finite].argmax()]] if len(finite) else []
    return {first + int(at) for at in [0, len(values) - 1, *extremes, *odd]}


def exported(past: Past) -> dict[str, list[tuple[int, float]]]:
    """Every point of every series that an export gives."""
    exact_points: dict[str, list[tuple[int, float]]] = {name: [] for name in NAMES}
    for rows in history(past.run.pk, ["**"]).rows():
        present = np.ones(rows.values.shape, bool) if rows.present is None else rows.present
        for name, values, have in zip(rows.names, rows.values, present, strict=True):
            exact_points[name] += zip(rows.steps[have].tolist(), values[have].tolist(), strict=True)
    return exact_points


@pytest.mark.parametrize(
    ("rows", "level", "even"),
    [(BLOCK + 100, 1, True), (700, 1, False), (18 * BLOCK + 5, 2, True), (18 * BLOCK + 5, 3, False)],
)
def test_what_is_left_is_the_first_the_extremes_and_the_last_of_every_bucket(rows: int, level: int, even: bool) -> None:
    past = Past(rows, level=level, even=even)
    while retention.sweep():
        pass
    points = exported(past)
    for column, name in enumerate(NAMES):
        expected = sorted(past.kept(column, level)) if column in THIN else list(range(rows))
        assert [step for step, _ in points[name]] == past.steps[expected].tolist()
        np.testing.assert_array_equal([value for _, value in points[name]], past.values[expected, column])


@pytest.mark.parametrize("level", [1, 2])
def test_every_window_of_a_thinned_series_gives_real_points_and_the_extremes_that_are_left(level: int) -> None:
    past, random = Past(18 * BLOCK + 5, level=level, even=False), np.random.default_rng(1)
    while retention.sweep():
        pass
    for points in (5, 40, 1000, 10**9):
        for _ in range(4):
            low, high = sorted(random.integers(0, past.steps[-1] + 1, 2).tolist())
            if points == 40:
                high = min(low + 5000, high)
            series_of = past.read(max_points=points, from_step=low, to_step=high)
            assert list(series_of) == NAMES
            for column in THIN:
                left = np.array(sorted(past.kept(column, level)))
                left = left[(past.steps[left] >= low) & (past.steps[left] <= high)]
                check(series_of[NAMES[column]], past.steps[left], past.values[left, column])
            inside = (past.steps >= low) & (past.steps <= high)
            assert {series.count for series in series_of.values()} == {int(inside.sum())}
            assert series_of["loss/total"].exact == (len(series_of["loss/total"].steps) == inside.sum())
            assert (series_of["loss/total"].thinned, series_of[NAMES[2]].exact) == (0, False)


def check(series: store.Series, steps: Any, values: Any) -> None:
    at = np.searchsorted(steps, series.steps)
    np.testing.assert_array_equal(steps[at], series.steps)
    np.testing.assert_array_equal(values[at], series.values)
    assert (np.diff(series.steps) > 0).all()
    finite, shown = values[np.isfinite(values)], series.values[np.isfinite(series.values)]
    if len(finite):
        assert (shown.min(), shown.max()) == (finite.min(), finite.max())
    if len(steps):
        assert (series.steps[0], series.steps[-1]) == (steps[0], steps[-1])


def test_a_thinned_series_says_how_coarse_it_is_and_a_window_at_the_end_says_it_of_itself() -> None:
    past = Past(17 * BLOCK, level=2)
    while retention.sweep():
        pass
    whole = past.read()[NAMES[2]]
    assert (whole.thinned, whole.spacing, np.nanmax(whole.values)) == (2, 256, 99)
    end = past.read(from_step=16 * BLOCK + 1)[NAMES[2]]
    assert (end.thinned, end.spacing) == (1, 16)
    assert (past.read()["loss/total"].thinned, past.read()["loss/total"].spacing) == (0, None)


def test_heat_maps_and_bands_read_what_is_left_and_a_mean_is_refused() -> None:
    past = Past(17 * BLOCK, level=2)
    before = store.grid(past.run.pk, ["grad_norm/a/W_q/*"], columns=100)
    while retention.sweep():
        pass
    after = store.grid(past.run.pk, ["grad_norm/a/W_q/*"], columns=100)
    np.testing.assert_array_equal(before.values, after.values)
    with pytest.raises(store.Thinned, match="a mean needs every point"):
        store.grid(past.run.pk, ["grad_norm/a/W_q/*"], reduce="mean")
    (band,) = bands({past.run.pk: None}, [NAMES[2]], max_points=10_000)
    real = past.values[band.steps, 2]
    np.testing.assert_array_equal(band.mean[np.isfinite(real)], real[np.isfinite(real)])


class Killed(Exception):
    pass


@contextmanager
def killed_before(statement: int) -> Iterator[list[int]]:
    """The process dies before its n-th statement: the transaction that is open then is rolled back."""
    left = iter(range(statement))

    def count(execute: Any, sql: str, *call: Any) -> Any:
        if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")) and next(left, None) is None:
            raise Killed
        return execute(sql, *call)

    with connection.execute_wrapper(count):
        yield []


def test_killed_between_any_two_statements_it_leaves_a_readable_series_and_goes_on(monkeypatch: Any) -> None:
    monkeypatch.setattr("experiments.lifecycle.thinning.ROWS", 7)
    past, finished, statement = Past(17 * BLOCK, level=2), False, 0
    left = [np.array(sorted(past.kept(column, 2))) for column in THIN]
    while not finished:
        statement += 7
        try:
            with killed_before(statement % 40), transaction.atomic():
                retention.sweep(20)
        except Killed:
            pass
        series_of = past.read(max_points=10**9)
        for column, rows in zip(THIN, left, strict=True):
            series = series_of[NAMES[column]]
            assert set(past.steps[rows]) >= set(series.steps) or series.exact
            assert series.values[np.isfinite(series.values)].max() == np.nanmax(
                past.values[np.isfinite(past.values[:, column]), column]
            )
        assert series_of["loss/total"].exact
        finished = past.group.thin_done != ""
    assert not Block.objects.filter(group=past.group, column__in=THIN, data__isnull=False).exists()
    assert Block.objects.filter(group=past.group, column__in=THIN, level=1).values("number").distinct().count() == 1
    assert Event.objects.filter(run=past.run, kind="thinned").count() == 1


def test_a_turn_takes_few_rows_and_a_rule_that_has_been_carried_out_costs_nothing_more() -> None:
    past = Past(4 * BLOCK)
    assert retention.sweep(3) == 8, "two series of four blocks go in one short transaction"
    assert retention.sweep() == 0
    assert not retention.due(past.project).exists()
    (event,) = Event.objects.filter(run=past.run, kind="thinned")
    assert event.message.startswith("2 of 4 train series, 16,384 points each: of every 16 points")


def test_a_run_that_is_young_or_not_over_is_left_alone() -> None:
    past = Past(BLOCK)
    Run.objects.filter(pk=past.run.pk).update(finished=Now() - timedelta(days=29))
    assert not retention.due(past.project).exists()
    Run.objects.filter(pk=past.run.pk).update(state=State.QUEUED, finished=None)
    assert lifecycle.thin_group(past.group.pk, ["**"], 1, "1 **", 100) == 0
    assert past.group.thinned == []


def test_a_failed_run_is_sealed_to_its_end_thinned_and_can_no_longer_be_retried() -> None:
    past = Past(BLOCK + 50, state=State.FAILED)
    while retention.sweep():
        pass
    assert past.group.sealed == BLOCK + 50
    assert past.read()[NAMES[3]].thinned == 1
    with pytest.raises(lifecycle.NotAllowed, match="were thinned"):
        lifecycle.retry(past.run.pk, None)


def test_a_stricter_rule_later_thins_further() -> None:
    past = Past(17 * BLOCK)
    while retention.sweep():
        pass
    Project.objects.filter(pk=past.project.pk).update(thin_level=2, thin_names="grad_norm/**")
    while retention.sweep():
        pass
    assert past.group.thinned == [0, 2, 2, 2]
    assert [series.thinned for series in past.read().values()] == [0, 2, 2, 2]


def test_thinning_in_the_middle_of_an_export_breaks_it_off(monkeypatch: Any) -> None:
    monkeypatch.setattr("experiments.store.readers.history.PIECE", BLOCK)
    past = Past(3 * BLOCK)
    rows = history(past.run.pk, ["**"]).rows()
    next(rows)
    retention.sweep()
    with pytest.raises(Changed, match="was thinned while it was read"):
        list(rows)


def test_rest_tells_what_was_thinned_and_exports_say_so_in_name_header_and_metadata() -> None:
    past, user = Past(BLOCK), make_user(is_superuser=True)
    client = APIClient()
    client.force_authenticate(user)
    points = {"runs": past.run.pk, "names": "**"}
    before = client.get("/api/v1/series/", points)
    retention.sweep(), retention.sweep()
    after = client.get("/api/v1/series/", points, HTTP_IF_NONE_MATCH=before.headers["ETag"])
    page = Client()
    page.force_login(user)
    assert b"2 series, to buckets of 16 points" in page.get(f"/runs/{past.run.pk}/").content
    told = [series.get("thinned") for series in after.json()["series"]]
    assert told == [None, None, *[{"level": 1, "points": 16, "steps": 16}] * 2]
    export = client.get(f"/api/v1/runs/{past.run.pk}/export/", {"format": "parquet"})
    assert export.headers["Thinned"] == "series=2; level=1; points=16"
    assert f'run-{past.run.pk}-thinned.parquet"' in export.headers["Content-Disposition"]
    table = pyarrow.parquet.read_table(io.BytesIO(b"".join(export.streaming_content)))
    assert b"head.1" in table.schema.metadata[b"thinned"]
    assert table.column(NAMES[2]).null_count == BLOCK - len(past.kept(2, 1))
    refused = client.get("/api/v1/series/grid/", {"run": past.run.pk, "names": "**", "reduce": "mean"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/reduce")
