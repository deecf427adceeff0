"""Eight processes that write at full speed to one database, beside a reader."""

from __future__ import annotations

import pytest

from benchmarks.stage.writers import together

WRITERS, SECONDS, ROWS = 8, 3.0, 64
LEAST = 1 / 3  # of an even share


@pytest.mark.django_db(transaction=True)
def test_eight_writers_meet_no_error_lose_no_point_and_none_starves() -> None:
    found = together(WRITERS, SECONDS, ROWS)
    assert found.errors == []
    assert len(found.points) == WRITERS
    assert found.lost == 0
    assert min(found.points) >= LEAST * sum(found.points) / WRITERS, found.points
