"""The work that every tracker is given, and how it is timed. Standard library only.

`write`    144 series a step from the training thread, and until the tracker calls them durable
`one`      one series of 100,000 steps, reduced to at most 1,000 points by the tracker
`compare`  one series of 100 runs of 10,000 steps, at most 1,000 points each
`exact`    all 100,000 steps of one series
`table`    of 1,000 runs those with one parameter's value, sorted by a metric

Each curve carries one spike; `spikes` says how many of the curves asked for still have it.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

LAYERS, HEADS = 12, 4
MATRICES = [f"encoder.{layer}.self/{matrix}" for layer in range(LAYERS) for matrix in ("W_q", "W_k", "W_v")]
NAMES = [f"grad_norm/{matrix}/head{head}" for matrix in MATRICES for head in range(HEADS)]
POINTS = 1000
SPIKE = 1000.0
VARIANTS = ("full", "no_q", "tied_qk", "uniform")
PATIENCE_S = 60  # after which a slow question is not repeated


@dataclass(frozen=True)
class Sizes:
    """How much of each work there is."""

    steps: int = 2000
    long: int = 100_000
    runs: int = 100
    short: int = 10_000
    table: int = 1000


def sizes() -> Sizes:
    """ATTN_BENCH_SCALE=10 makes everything ten times smaller."""
    scale = int(os.environ.get("ATTN_BENCH_SCALE", "1"))
    return Sizes(*(max(1, size // scale) for size in vars(Sizes()).values()))


def curve(steps: int, seed: int = 0) -> list[float]:
    """Falling, noisy, and one spike at two thirds."""
    noise = random.Random(seed)
    values = [math.exp(-3 * step / steps) + 0.05 * noise.random() for step in range(steps)]
    values[2 * steps // 3] = SPIKE
    return values


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class Report:
    """Prints one JSON line a figure."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a tracker prints is not a figure

    def say(self, work: str, **facts: Any) -> None:
        print(json.dumps({"work": work, **facts}), file=self._out, flush=True)

    def write(
        self,
        how: str,
        log: Callable[[int, dict[str, float]], None],
        finish: Callable[[], None],
        folder: Path,
        steps: int,
    ) -> None:
        """`log` is what the training thread waits for; `finish` makes what it logged durable."""
        noise = random.Random(1)
        rows = [{name: noise.random() for name in NAMES} for _ in range(min(steps, 64))]
        before, began, waits = size_of(folder), time.perf_counter(), []
        for step in range(steps):
            at = time.perf_counter()
            log(step, rows[step % len(rows)])
            waits.append((time.perf_counter() - at) * 1000)
        finish()
        took, points = time.perf_counter() - began, steps * len(NAMES)
        self.say(
            "write",
            how=how,
            ms=round(sum(waits) / steps, 4),
            median_ms=round(median(waits), 4),
            points_a_second=round(points / took),
            bytes_a_point=round((size_of(folder) - before) / points, 1),
        )

    def read(self, work: str, how: str, ask: Callable[[], Sequence[Sequence[float]]], repeats: int = 7) -> None:
        """The median of some repeats after a first one; fewer where the tracker is slow."""
        began, took, found = time.perf_counter(), [], ask()
        first = time.perf_counter() - began
        while len(took) < repeats and (not took or time.perf_counter() - began + first < PATIENCE_S):
            at = time.perf_counter()
            found = ask()
            took.append((time.perf_counter() - at) * 1000)
        facts: dict[str, Any] = {"how": how, "ms": round(median(took), 2), "repeats": len(took), "series": len(found)}
        if work in ("one", "compare", "exact"):
            facts |= {"spikes": sum(max(values) >= SPIKE for values in found), "points": sum(map(len, found))}
        self.say(work, **facts)


def folder() -> Path:
    return Path(sys.argv[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: Any = None, form: Any = None) -> Any:
    """JSON over HTTP: a GET, or a POST of JSON or of a form."""
    data, kind = (json.dumps(body).encode(), "application/json") if body is not None else (None, "")
    if form is not None:
        data, kind = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
    request = urllib.request.Request(url, data, {"Content-Type": kind} if data else {})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.loads(reply.read())


@contextmanager
def serving(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """The tracker's own server until it is no longer needed. Raises RuntimeError with its log if it does not start."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f"its server does not start: {log.read_text(errors='replace')[-600:]}")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def end() -> None:
    """Leave at once: some trackers keep threads that never end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
