"""Writers at full speed: each a process of its own, through the real write path, beside a reader who compares runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SERIES, ROWS, FLUSHES = 144, 1024, 4  # rows of a flush: a full ring; flushes between checkpoints
MOST = 10_000_000  # steps a spec may ask for
COMPARED = 20
IDLE_READS = 200
READ_BACK_S = 600  # what a writer may take to read its points back
Read = Callable[[list[int]], None]


class Writer:
    """One run that is claimed here, and flushed to, checkpointed and sealed as its supervisor would."""

    def __init__(self, number: int, rows: int = ROWS) -> None:
        from experiments.operations.demo_runs import names_of

        self.rows = rows
        self.held = _claimed(f"writer.{number}")
        self.names, self.at, self.points = names_of(SERIES), 0, 0
        random = np.random.default_rng(number)
        falls = np.exp(-np.arange(FLUSHES * rows, dtype=np.float32) / 2000)[:, None]
        noise = random.standard_normal((FLUSHES * rows, SERIES), np.float32)
        self.values = ((0.2 + falls) * (1 + np.float32(0.1) * noise)).reshape(FLUSHES, rows, SERIES)
        self.jitter = random.random(rows) * 0.002

    def go(self, seconds: float) -> None:
        """Whole rounds of flushes, a checkpoint and sealing, until the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._round()

    def _round(self) -> None:
        from experiments import lifecycle, store

        for values in self.values:
            low, high = self.at, self.at + self.rows
            steps = np.arange(low, high)
            frame = store.Incoming("train", self.names, steps, steps / 2000.0 + self.jitter, values)
            lifecycle.commit(self.held, low, high, [frame])
            self.at, self.points = high, self.points + self.rows * SERIES
        lifecycle.publish_checkpoint(self.held, step=self.at, path="", sha256="", size=0)
        lifecycle.seal(self.held)

    def unsealed(self) -> int:
        from experiments.models import Frame

        return Frame.objects.filter(group__run=self.held.run_id).count()

    def lost(self) -> int:
        """Points of all series that were committed and cannot be read back, or that read back otherwise."""
        return sum(self._lost(column) for column in range(SERIES))

    def _lost(self, column: int) -> int:
        from experiments import store

        (series,) = store.read([self.held.run_id], [self.names[column]], max_points=self.at + 1)
        wanted = np.resize(self.values[:, :, column].ravel(), self.at)
        if not np.array_equal(series.steps, np.arange(self.at)):
            return abs(self.at - len(series.steps)) or self.at
        return int((series.values != wanted).sum())


@dataclass
class Found:
    """What a crowd of writers came to."""

    idle_ms: float = 0.0
    busy_ms: float = 0.0
    reads: int = 0
    points: list[int] = field(default_factory=list)
    lost: int = 0
    errors: list[str] = field(default_factory=list)


def read_in_process(runs: list[int]) -> None:
    """The comparison without a web server."""
    from experiments import store

    assert len(store.read(runs, ["loss/total"], max_points=1000)) == COMPARED


def together(writers: int, seconds: float, rows: int = ROWS, read: Read = read_in_process) -> Found:
    """Let them write, compare meanwhile, and look at what is there afterwards."""
    from django.db import connections

    compared = _runs_to_compare()
    read(compared)
    found = Found(idle_ms=_p95([_timed(read, compared) for _ in range(IDLE_READS)]))
    connections.close_all()
    children = [_child(number, seconds, rows) for number in range(1, writers + 1)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()  # it is ready
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    _read_beside(seconds, read, compared, found)
    for child in children:
        _hear(child, found)
    return found


def _child(number: int, seconds: float, rows: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.stage.writers", str(number), str(seconds), str(rows)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _hear(child: subprocess.Popen[str], found: Found) -> None:
    told, _ = child.communicate(timeout=READ_BACK_S)
    if child.returncode:
        found.errors.append(f"a writer ended with {child.returncode}")
        return
    answer = json.loads(told.splitlines()[-1])
    found.points.append(answer["points"])
    found.lost += answer["lost"]


def _read_beside(seconds: float, read: Read, compared: list[int], found: Found) -> None:
    deadline, took = time.monotonic() + seconds, []
    while time.monotonic() < deadline:
        try:
            took.append(_timed(read, compared))
        except Exception as error:  # what is measured is that there is none
            found.errors.append(f"reader: {error}")
        time.sleep(0.02)
    found.busy_ms, found.reads = _p95(took), len(took)


def _timed(read: Read, runs: list[int]) -> float:
    """Milliseconds of one comparison."""
    began = time.perf_counter()
    read(runs)
    return (time.perf_counter() - began) * 1000


def _p95(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.95)]


def _runs_to_compare() -> list[int]:
    from experiments.models import Project
    from experiments.operations.demo_runs import fill

    return fill(Project.objects.create(name="compared"), runs=COMPARED, steps=5000, series=1, seed=3).runs


def _claimed(pool: str) -> Any:
    from experiments import lifecycle
    from experiments.models import Project
    from experiments.submissions.submission import plan

    project, _ = Project.objects.get_or_create(name=pool)
    train = {"steps": MOST, "checkpoint_every": MOST}
    optimizer = {"warmup_steps": 0}
    spec = {"task": "classify", "data": {"dataset": "digits"}, "optimizer": optimizer, "train": train}
    lifecycle.submit(plan({"name": pool, "spec": {**spec, "resources": {"pool": pool}}}), project=project, user=None)
    claim = lifecycle.claim([pool], lifecycle.register_worker(pool, "bench", 1, [pool], 1, "none", {}))
    assert claim is not None
    lifecycle.start(claim.held, pid=0, device="none", info={})
    return claim.held


def main() -> None:
    """A child of `together`: says that it is ready, waits for the word, writes, and tells what it did."""
    import django

    django.setup()
    number, seconds, rows = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    writer = Writer(number, rows)
    print("ready", flush=True)
    sys.stdin.readline()
    writer.go(seconds)
    print(json.dumps({"points": writer.points, "lost": writer.lost()}), flush=True)


if __name__ == "__main__":
    main()
