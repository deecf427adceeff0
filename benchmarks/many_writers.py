"""Eight processes that write at full speed to one database while somebody compares runs over HTTP.

`python -m benchmarks.many_writers [sqlite|postgres] [--seconds 60] [--strict]`: each writer has a run of 144 series and
takes it through the real write path (flush, checkpoint, seal) as fast as it can, on SQLite with synchronous=FULL and
on PostgreSQL with fsync on. A reader asks a warm gunicorn for 20 runs × 5,000 steps, before and meanwhile. Afterwards
every point is read back. Bounds: no error, no point lost, the reader's p95 at most 3 × that of an idle database, and no
writer's share below a third of an even one.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from .stage.bounds import asked, each, seconds, settle, tell
from .stage.database import KINDS, database
from .stage.results import keep
from .stage.web import Reader, web
from .stage.writers import COMPARED, together

WRITERS = 8
SLOWER, FAIR = 3.0, 1 / 3


def main() -> None:
    kinds = asked(KINDS)
    if len(kinds) > 1:  # a process each: Django's settings stay
        each("benchmarks.many_writers", kinds)
        return
    load = os.getloadavg()[0]
    with database(kinds[0]) as folder, web(folder) as reader:
        figures = _crowd(kinds[0], reader)
    keep(f"many_writers {kinds[0]}", {"load_before": round(load, 2), **figures})
    settle()


def _crowd(kind: str, reader: Reader) -> dict[str, Any]:
    result = together(WRITERS, seconds(), read=partial(_compare, reader))
    even = sum(result.points) / WRITERS
    least = min(result.points, default=0) / even if even else 0.0
    for error in result.errors[:5]:
        print(error)
    return {
        "seconds": seconds(),
        "errors": result.errors,
        "errors in all": tell(f"{kind}: errors", len(result.errors), 0),
        "points lost": tell(f"{kind}: points lost of {sum(result.points):,}", result.lost, 0),
        "points a second": round(sum(result.points) / seconds()),
        "reads": result.reads,
        "reader idle p95 ms": round(result.idle_ms, 2),
        "reader p95 ms": round(result.busy_ms, 2),
        "reader slower": tell(f"{kind}: reader's p95, × idle", result.busy_ms / result.idle_ms, SLOWER),
        "least share": tell(f"{kind}: least writer's share of an even one", least, FAIR, at_least=True),
    }


def _compare(reader: Reader, runs: list[int]) -> None:
    query = {"runs": ",".join(map(str, runs)), "names": "loss/total", "max_points": 1000}
    assert reader.get("series/", query).count(b'"loss/total"') == COMPARED


if __name__ == "__main__":
    main()
