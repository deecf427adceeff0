"""Writing to the store: the training thread, and durable rows with sealing caught up.

`python -m benchmarks.store_write [step|sqlite|postgres] [--seconds 60] [--strict]` measures, on SQLite
(synchronous=FULL) and on PostgreSQL (fsync on):

- what a step of 144 series costs the training thread (the recorder's part of it, on the CPU, without sending);
- points a second from one writer, through `lifecycle`, until committed and sealed; bytes a point on disk.

Many writers at once: `benchmarks.many_writers`. With --strict a missed bound ends it with 1.
"""

from __future__ import annotations

import os
import time
from statistics import median
from typing import Any

from .stage.bounds import asked, each, seconds, settle, tell
from .stage.database import KINDS, database, size_on_disk
from .stage.results import keep
from .stage.writers import SERIES, Writer

POINTS_A_SECOND = {"sqlite": 3_000_000, "postgres": 2_000_000}
STEP_MS, BYTES_A_POINT = 0.03, 5.0


def main() -> None:
    kinds = asked(["step", *KINDS])
    if len(kinds) > 1:  # a process each: Django's settings stay, and torch is only for the first
        each("benchmarks.store_write", kinds)
        return
    keep(f"store_write {kinds[0]}", {"load_before": round(os.getloadavg()[0], 2), **_measure(kinds[0])})
    settle()


def _measure(kind: str) -> dict[str, Any]:
    if kind == "step":
        return {"ms a step": tell("training thread, 144 series, ms a step", step_ms(), STEP_MS), "bound": STEP_MS}
    with database(kind):
        return {"one writer": _sustained(kind)}


def step_ms(steps: int = 20_000) -> float:
    """Wall time of `train` and `complete` over many steps, flushes included; the median of five rounds."""
    import torch

    from workers.trainer.recording.recorder import Recorder

    torch.set_num_threads(1)
    rows, rounds = torch.randn(64, SERIES), []
    for _ in range(5):
        recorder = Recorder(lambda message, payload=b"": None, time.monotonic)
        recorder.open(0, [f"loss/{at}" for at in range(SERIES)], {}, torch.device("cpu"))
        began = time.perf_counter()
        for step in range(steps):
            recorder.train(step, rows[step % 64])
            recorder.complete(step)
        rounds.append((time.perf_counter() - began) * 1000 / steps)
    return median(rounds)


def _sustained(kind: str) -> dict[str, Any]:
    """Flushes of a full ring, a checkpoint and sealing every fourth, as a fast run makes them."""
    writer = Writer(0)
    writer.go(1.0)
    before, points = size_on_disk(), writer.points
    cpu, began = time.process_time(), time.perf_counter()
    writer.go(seconds())
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    points = writer.points - points
    assert writer.unsealed() == 0, "sealing has not caught up"
    bound = POINTS_A_SECOND[kind]
    return {
        "points a second": tell(f"{kind}: durable and sealed, points a second", points / took, bound, at_least=True),
        "points a second of CPU": round(points / cpu),
        "bytes a point": tell(f"{kind}: bytes a point on disk", (size_on_disk() - before) / points, BYTES_A_POINT),
        "seconds": round(took, 1),
    }


if __name__ == "__main__":
    main()
