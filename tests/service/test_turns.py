"""Who writes much to PostgreSQL waits for a turn, but not for ever; who writes little waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction

from experiments import lifecycle, store
from experiments.store.writers import throttle as turns

from .factories import claim, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


class Clock:
    """The time of whoever waits for a turn: it passes in the pauses alone. `pause` happens in the first of them."""

    def __init__(self) -> None:
        self.now, self.looks, self.pauses = 0.0, 0, 0
        self.pause: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        self.looks += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        if self.pauses == 1:
            self.pause()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


@contextmanager
def somebody_with_a_turn() -> Iterator[Callable[[], None]]:
    """Another transaction has a turn; it has ended, for certain, once what is yielded returns. Its connection stays
    open to the end of the block: a turn that outlived the transaction would show."""
    has, go, over, leave = (threading.Event() for _ in range(4))

    def hold() -> None:
        try:
            with transaction.atomic():
                assert turns.wait_for_turn()
                has.set()
                go.wait(60)
            over.set()
            leave.wait(60)
        finally:
            connection.close()

    def end() -> None:
        go.set()
        assert over.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert has.wait(30)
        yield end
        assert go.is_set() or not over.is_set(), "the turn was kept to the end of the test"
    finally:
        go.set()
        leave.set()
        holder.join()


@pytest.fixture
def taken(clock: Clock) -> Iterator[Callable[[], None]]:
    """Somebody has the only turn until this is called."""
    if connection.vendor != "postgresql":
        pytest.skip("on SQLite every transaction has its turn")
    with somebody_with_a_turn() as end:
        clock.looks = 0
        yield end


def frame(rows: int, series: int) -> store.Incoming:
    steps, values = np.arange(rows), np.zeros((rows, series), np.float32)
    return store.Incoming("train", [f"loss/{at}" for at in range(series)], steps, steps / 10.0, values)


def test_the_next_one_waits_until_the_transaction_before_has_ended(taken: Callable[[], None], clock: Clock) -> None:
    clock.pause = taken
    with transaction.atomic():
        assert turns.wait_for_turn()
    assert clock.pauses == 1, "it has waited, and no longer than until the other one had ended"


def test_who_waits_too_long_goes_on_without_a_turn(taken: Callable[[], None], clock: Clock) -> None:
    with transaction.atomic():
        assert not turns.wait_for_turn()
    assert turns.PATIENCE_S < clock.now < turns.PATIENCE_S + 2 * max(turns.PAUSE_S)


def test_a_large_flush_goes_on_without_a_turn_that_somebody_keeps(taken: Callable[[], None], clock: Clock) -> None:
    mine = claim(make_run()).held
    lifecycle.commit(mine, 0, 1000, [frame(1000, store.MUCH // 1000)])
    assert clock.now > turns.PATIENCE_S
    assert len(store.read([mine.run_id], ["loss/0"], max_points=1000)[0].steps) == 1000


def test_a_small_flush_waits_for_nobody(taken: Callable[[], None], clock: Clock) -> None:
    mine = claim(make_run()).held
    lifecycle.commit(mine, 0, 100, [frame(100, 144)])
    assert clock.looks == 0, "it asked for no turn"
    lifecycle.commit(mine, 100, 1100, [_later(frame(1000, store.MUCH // 1000), 100)])
    assert clock.looks > 0, "a large one does"


def _later(frame: store.Incoming, by: int) -> store.Incoming:
    return replace(frame, steps=frame.steps + by)


def test_as_many_turns_as_the_setting_says(taken: Callable[[], None], clock: Clock, settings: Any) -> None:
    settings.ATTN_WRITERS_AT_ONCE = 2
    with somebody_with_a_turn():
        assert clock.pauses == 0, "the second turn was free"
        with transaction.atomic():
            assert not turns.wait_for_turn(), "there is no third"
    with transaction.atomic():
        assert turns.wait_for_turn()
