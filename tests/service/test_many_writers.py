"""Eight processes that write at full speed to one database, beside a reader."""

from __future__ import annotations

import pytest

from benchmarks.stage.writers import together

WRITERS, SECONDS, ROWS = 8, 3.0, 64
LEAST = 1 / 3  # of an even share


@pytest.mark.django_db(transaction=True)
def test_eight_writers_meet_no_error_lose_no_point_and_none_starves() -> None:
    result = together(WRITERS, SECONDS, ROWS)
    assert result.errors == []
    assert len(result.points) == WRITERS
    assert result.lost == 0
    assert min(result.points) >= LEAST * sum(result.points) / WRITERS, result.points
