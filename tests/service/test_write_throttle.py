"""Large writes to PostgreSQL wait for one another, but not for ever; small ones never wait."""

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
from experiments.store.writers import throttle

from .factories import claim, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


class FakeTime:
    """The time of whoever waits for a slot: it passes in the pauses alone. `pause` happens in the first of them."""

    def __init__(self) -> None:
        self.now, self.tries, self.pauses = 0.0, 0, 0
        self.pause: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        self.tries += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        if self.pauses == 1:
            self.pause()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(throttle, "time", clock)
    return clock


@contextmanager
def another_large_write() -> Iterator[Callable[[], None]]:
    """Another transaction holds a slot; it has ended, for certain, once what is yielded returns. Its connection stays
    open to the end of the block: a slot that outlived the transaction would show."""
    has, go, over, leave = (threading.Event() for _ in range(4))

    def hold() -> None:
        try:
            with transaction.atomic():
                assert throttle.throttle_write()
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
        assert go.is_set() or not over.is_set(), "the slot was kept to the end of the test"
    finally:
        go.set()
        leave.set()
        holder.join()


@pytest.fixture
def taken(clock: FakeTime) -> Iterator[Callable[[], None]]:
    """Another transaction holds the only slot until this is called."""
    if connection.vendor != "postgresql":
        pytest.skip("on SQLite every transaction is throttled")
    with another_large_write() as end:
        clock.tries = 0
        yield end


def frame(rows: int, series: int) -> store.Incoming:
    steps, values = np.arange(rows), np.zeros((rows, series), np.float32)
    return store.Incoming("train", [f"loss/{at}" for at in range(series)], steps, steps / 10.0, values)


def test_the_next_one_waits_until_the_transaction_before_has_ended(taken: Callable[[], None], clock: FakeTime) -> None:
    clock.pause = taken
    with transaction.atomic():
        assert throttle.throttle_write()
    assert clock.pauses == 1, "it has waited, and no longer than until the other one had ended"


def test_a_write_that_waits_too_long_goes_on_without_a_slot(taken: Callable[[], None], clock: FakeTime) -> None:
    with transaction.atomic():
        assert not throttle.throttle_write()
    assert throttle.PATIENCE_S < clock.now < throttle.PATIENCE_S + 2 * max(throttle.PAUSE_S)


def test_a_large_flush_goes_on_without_a_slot_nobody_releases(taken: Callable[[], None], clock: FakeTime) -> None:
    mine = claim(make_run()).held
    lifecycle.commit(mine, 0, 1000, [frame(1000, store.LARGE_WRITE // 1000)])
    assert clock.now > throttle.PATIENCE_S
    assert len(store.read([mine.run_id], ["loss/0"], max_points=1000)[0].steps) == 1000


def test_a_small_flush_never_waits(taken: Callable[[], None], clock: FakeTime) -> None:
    mine = claim(make_run()).held
    lifecycle.commit(mine, 0, 100, [frame(100, 144)])
    assert clock.tries == 0, "it asked for no slot"
    lifecycle.commit(mine, 100, 1100, [_later(frame(1000, store.LARGE_WRITE // 1000), 100)])
    assert clock.tries > 0, "a large one does"


def _later(frame: store.Incoming, by: int) -> store.Incoming:
    return replace(frame, steps=frame.steps + by)


def test_as_many_slots_as_the_setting_says(taken: Callable[[], None], clock: FakeTime, settings: Any) -> None:
    settings.ATTN_WRITERS_AT_ONCE = 2
    with another_large_write():
        assert clock.pauses == 0, "the second slot was free"
        with transaction.atomic():
            assert not throttle.throttle_write(), "there is no third"
    with transaction.atomic():
        assert throttle.throttle_write()
