"""Who writes much to PostgreSQL waits for a turn, but not for ever; who writes little waits for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from django.db import connection, transaction

from experiments import lifecycle, store
from experiments.store.writers import throttle as turns

from .factories import claim, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


@pytest.fixture
def taken() -> Iterator[threading.Event]:
    """Somebody has the turn until the event is set."""
    if connection.vendor != "postgresql":
        pytest.skip("on SQLite every transaction has its turn")
    has, go = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                assert turns.wait_for_turn()
                has.set()
                go.wait(20)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert has.wait(10)
    yield go
    go.set()
    holder.join()


def frame(rows: int, series: int) -> store.Incoming:
    steps, values = np.arange(rows), np.zeros((rows, series), np.float32)
    return store.Incoming("train", [f"loss/{at}" for at in range(series)], steps, steps / 10.0, values)


def test_the_next_one_waits_until_the_transaction_before_has_ended(taken: threading.Event) -> None:
    threading.Timer(0.4, taken.set).start()
    began = time.monotonic()
    with transaction.atomic():
        assert turns.wait_for_turn()
    assert 0.3 < time.monotonic() - began < turns.PATIENCE_S


def test_a_large_flush_goes_on_without_a_turn_that_somebody_keeps(
    taken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.5)
    mine, began = claim(make_run()).held, time.monotonic()
    lifecycle.commit(mine, 0, 1000, [frame(1000, store.MUCH // 1000)])
    assert time.monotonic() - began >= 0.5
    assert len(store.read([mine.run_id], ["loss/0"], max_points=1000)[0].steps) == 1000


def test_a_small_flush_waits_for_nobody(taken: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> bool:
        raise AssertionError("a small flush asked for a turn")

    monkeypatch.setattr(store, "wait_for_turn", never)
    lifecycle.commit(claim(make_run()).held, 0, 100, [frame(100, 144)])


def test_as_many_turns_as_the_setting_says(taken: threading.Event, settings: object) -> None:
    settings.ATTN_WRITERS_AT_ONCE = 2  # type: ignore[attr-defined]
    began = time.monotonic()
    with transaction.atomic():
        assert turns.wait_for_turn()
    assert time.monotonic() - began < 1.0
