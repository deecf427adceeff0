"""Exact values in an object storage beside exact values in the database: time of reads, bytes a point that stay.

`python -m benchmarks.blocks_outside [sqlite|postgres]` fills one run of 144 series × 100,000 steps, reads it from the
database, archives it in moto's S3 server (another process on this machine) and reads it again. Reads are in process,
without HTTP of our own, alternating; the median of each is kept. Figures go to benchmarks/results.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .stage.database import KINDS, analyse, database, size_on_disk
from .stage.results import keep

STEPS, SERIES, REPEATS, BUCKET = 100_000, 144, 15, "bench"


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    if kind not in KINDS:
        raise SystemExit(f"usage: python -m benchmarks.blocks_outside [{'|'.join(KINDS)}]")
    with _objects(), database(kind):
        empty = size_on_disk()
        archived = _fill(0)
        inside = _size(empty)
        moved, seconds = _archive()
        outside, stays = _size(empty), _fill(1)
        reads = _reads({"inside": stays, "outside": archived})
        if kind == "postgres":
            _partition({"inside": stays, "outside": archived})
    speed = round(moved / seconds / 2**20, 1)
    section = {"points": STEPS * SERIES, "bytes a point": {"inside": inside, "outside": outside}, "ms": reads}
    for what, times in reads.items():
        print(f"{what:60s} {times['inside']:8.2f} ms inside {times['outside']:8.2f} ms outside")
    print(f"bytes a point, inside: {inside}\nbytes a point, outside: {outside}")
    print(f"archived {moved / 2**20:.0f} MB at {speed} MB/s; load {os.getloadavg()[0]:.1f}")
    keep(f"blocks outside {kind}", section | {"moved, MB/s": speed})


@contextmanager
def _objects() -> Iterator[None]:
    """An S3 server and a bucket, and the settings that name them."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = {"ATTN_S3_ACCESS_KEY": "access", "ATTN_S3_SECRET_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    where = {"ATTN_S3_ENDPOINT": f"http://127.0.0.1:{port}", "ATTN_BLOCKS_STORAGE": f"s3://{BUCKET}/blocks"}
    os.environ.update(keys | where | {"ATTN_BLOCKS_AFTER_S": "0"})
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_open(port)
        client = boto3.client(
            "s3", endpoint_url=where["ATTN_S3_ENDPOINT"], aws_access_key_id="access", aws_secret_access_key="secret"
        )
        client.create_bucket(Bucket=BUCKET)
        yield
    finally:
        server.terminate()
        server.wait()


def _until_open(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("moto's server does not answer")


def _partition(runs: dict[str, int]) -> None:
    """The same reads once more from sixteen partitions, alone: compare with those before."""
    from experiments.store.partitioning import partition

    began = time.monotonic()
    rows = partition(16)
    seconds = time.monotonic() - began
    analyse()
    reads = _reads(runs)
    print(f"16 partitions of {rows} rows made in {seconds:.1f} s")
    for what, times in reads.items():
        print(f"{what:60s} {times['inside']:8.2f} ms inside {times['outside']:8.2f} ms outside, partitioned")
    keep("partitions postgres", {"rows": rows, "seconds": round(seconds, 1), "ms": reads})


def _fill(seed: int) -> int:
    from experiments.models import Project
    from experiments.operations.demo_runs import fill

    run = fill(Project.objects.create(name=f"bench{seed}"), runs=1, steps=STEPS, series=SERIES, seed=seed).runs[0]
    analyse()
    return run


def _archive() -> tuple[int, float]:
    """Bytes moved and seconds it took."""
    from experiments.maintenance import archiving

    moved, began = 0, time.monotonic()
    while more := archiving.sweep(60):
        moved += more
    return moved, time.monotonic() - began


def _size(empty: int) -> dict[str, float]:
    """Bytes per point: of the blobs in the database, and by how much the vacuumed database grew."""
    from django.db import connection
    from django.db.models import Sum
    from django.db.models.functions import Length

    from experiments.models import ArchivedBlock, Block, StepIndex

    with connection.cursor() as cursor:
        cursor.execute("VACUUM" if connection.vendor == "sqlite" else "VACUUM FULL")
    points = STEPS * SERIES
    sums: dict[str, Any] = {
        "exact values": Block.objects.aggregate(n=Sum(Length("data")))["n"],
        "pyramid, level 1": Block.objects.filter(level=1).aggregate(n=Sum(Length("summary")))["n"],
        "pyramid, above": Block.objects.filter(level__gt=1).aggregate(n=Sum(Length("summary")))["n"],
        "steps and times": StepIndex.objects.aggregate(n=Sum(Length("data")))["n"],
        "index of archived blocks": ArchivedBlock.objects.aggregate(n=Sum(Length("index")))["n"],
        "archived blocks, outside": ArchivedBlock.objects.aggregate(n=Sum("size"))["n"],
    }
    return {name: round((n or 0) / points, 4) for name, n in sums.items()} | {
        "database in all": round((size_on_disk() - empty) / points, 4)
    }


def _reads(runs: dict[str, int]) -> dict[str, dict[str, float]]:
    """Medians in ms of each read, alternating between both runs."""
    from experiments import store
    from experiments.operations.demo_runs import names_of

    name = names_of(1)[0]
    part, whole_block = {"from_step": 41_111, "to_step": 71_110}, {"from_step": 40_960, "to_step": 45_055}
    asks: dict[str, Callable[[int], Any]] = {
        "1 series, 100,000 steps to 1,000 points": lambda run: store.read([run], [name], max_points=1000),
        "1 series, 30,000 steps from within a block to 1,000 points": lambda run: store.read(
            [run], [name], max_points=1000, **part
        ),
        "1 series, 100,000 steps exact": lambda run: store.read([run], [name], max_points=STEPS),
        "144 series, 4,096 steps exact": lambda run: store.read([run], ["**"], max_points=5000, **whole_block),
        "heat-map, 144 × 100,000 to 400 columns": lambda run: store.grid(run, ["**"], columns=400),
    }
    return {what: _medians(ask, runs) for what, ask in asks.items()}


def _medians(ask: Callable[[int], Any], runs: dict[str, int]) -> dict[str, float]:
    times_of: dict[str, list[float]] = {where: [] for where in runs}
    for _ in range(REPEATS):
        for where, run in runs.items():
            began = time.perf_counter()
            ask(run)
            times_of[where].append((time.perf_counter() - began) * 1000)
    return {where: round(statistics.median(times[1:]), 2) for where, times in times_of.items()}


if __name__ == "__main__":
    main()
