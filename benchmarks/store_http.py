"""Every read of the metric store over HTTP: warm gunicorn, SQLite (synchronous=FULL), PostgreSQL (fsync on).

`python -m benchmarks.store_http [sqlite|postgres] [--strict]` fills temporary databases, asks each until its median
stands, checks that spikes are where they were put, and prints each median beside its bound. Sizes can be scaled down
for a quick look: ATTN_BENCH_SCALE=10 divides runs of the large table. Figures go to benchmarks/results.
"""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from typing import Any

from .stage.bounds import asked, each, mark, settle
from .stage.database import KINDS, analyse, database
from .stage.results import keep
from .stage.web import Reader, web

SCALE = int(os.environ.get("ATTN_BENCH_SCALE", "1"))
LONG, COMPARED, SHORT, SERIES = 100_000, 100, 10_000, 144
ARROW = "application/vnd.apache.arrow.stream"
CHART = "application/json"  # what the compare page asks for
# The questions of the run table: filters that match a quarter, one run in ten thousand, none, and another metric.
BY_METRIC = {"ordering": "-metric.eval/m00"}
TABLE = {
    "no filter, by metric": BY_METRIC,
    "common parameter, by metric": {"param.model.attention.variant": "no_q", **BY_METRIC},
    "rare parameter, by metric": {"param.model.attention.init": "needle", **BY_METRIC},
    "absent parameter, by metric": {"param.model.attention.init": "nothing", **BY_METRIC},
    "other metric, common, by metric": {"metric.eval/m02__lt": "0.5", **BY_METRIC},
    "other metric, rare, by metric": {"metric.eval/m02__lt": "0.0002", **BY_METRIC},
    "other metric, absent, by metric": {"metric.eval/m02__lt": "-1", **BY_METRIC},
    "common parameter, newest first": {"param.model.attention.variant": "no_q"},
    "rare parameter, newest first": {"param.model.attention.init": "needle"},
    "absent parameter, newest first": {"param.model.attention.init": "nothing"},
    "other metric, common, newest first": {"metric.eval/m02__lt": "0.5"},
    "other metric, rare, newest first": {"metric.eval/m02__lt": "0.0002"},
}


@dataclass(frozen=True)
class Bound:
    """What a question must not exceed, in ms, by database."""

    sqlite: float
    postgres: float

    def of(self, kind: str) -> float:
        return self.sqlite if kind == "sqlite" else self.postgres


ONE, COMPARE, EXACT, GRID = Bound(8, 10), Bound(60, 75), Bound(12, 16), Bound(60, 60)
SMALL_TABLE, LARGE_TABLE = Bound(10, 10), Bound(50, 50)
LIVE_BYTES = 5000.0
LIVE_POINTS = 100  # of a chart a visit, as feed.js asks


def main() -> None:
    kinds = asked(KINDS)
    if len(kinds) > 1:  # a process each: Django's settings stay
        each("benchmarks.store_http", kinds)
        return
    measure(kinds[0])
    settle()


def measure(kind: str) -> None:
    began, load = time.monotonic(), os.getloadavg()[0]
    figures: dict[str, Any] = {}
    with database(kind) as folder:
        from experiments.models import Project

        from . import run_table

        made = _fill(Project.objects.create(name="series"))
        run_table.fill(1000)
        analyse()
        with web(folder) as reader:
            figures |= _series(reader, kind, *made)
            figures |= _table(reader, kind, 1000, SMALL_TABLE)
            figures["live, one chart"] = _live(reader)
        _set_aside()
        run_table.fill(100_000 // SCALE)
        with web(folder) as reader:
            figures |= _table(reader, kind, 100_000 // SCALE, LARGE_TABLE)
    keep(f"store_http {kind}", {"load_before": round(load, 2), "seconds": round(time.monotonic() - began), **figures})


def _fill(project: Any) -> tuple[Any, Any]:
    """One long run of many series, and many runs of one series."""
    from experiments.operations.demo_runs import fill

    long = fill(project, runs=1, steps=LONG, series=SERIES, seed=1)
    return long, fill(project, runs=COMPARED, steps=SHORT, series=1, seed=2)


def _set_aside() -> None:
    """Names of the small table's projects are taken again by the large one."""
    from experiments.models import Project

    for name in ("large", "small", "tiny"):
        Project.objects.filter(name=name).update(name=f"{name} before")


def _series(reader: Reader, kind: str, long: Any, short: Any) -> dict[str, Any]:
    run, ((_, spike),) = long.runs[0], long.spikes.items()
    one = {"runs": run, "names": "loss/total", "max_points": 1000}
    compare = {"runs": ",".join(map(str, short.runs)), "names": "loss/total", "max_points": 1000}
    exact = {**one, "max_points": LONG}
    grid = {"run": run, "names": "**", "columns": 400}
    found = {
        "100,000 steps to 1,000 points": _ask(reader, kind, ONE, "series/", one, CHART),
        "compare 100 runs × 10,000 steps": _ask(reader, kind, COMPARE, "series/", compare, CHART),
        "exact 100,000 steps, Arrow": _ask(reader, kind, EXACT, "series/", exact, ARROW),
        "heat-map 144 × 100,000 to 400": _ask(reader, kind, GRID, "series/grid/", grid, CHART),
    }
    found["100,000 steps to 1,000 points"]["spikes kept"] = _spikes(reader, one, long)
    found["compare 100 runs × 10,000 steps"]["spikes kept"] = _spikes(reader, compare, short)
    _check_exact(reader.get("series/", exact, ARROW), spike)
    cells = reader.json("series/grid/", grid)
    assert all(max(v for v in row if v is not None) > 100 for row in cells["values"]), "a spike is gone"
    assert len(cells["values"]) == SERIES
    return _told(found)


def _ask(reader: Reader, kind: str, bound: Bound, path: str, query: dict[str, Any], accept: str) -> dict[str, Any]:
    return {**reader.time(lambda: reader.get(path, query, accept), 15), "bound": bound.of(kind)}


def _spikes(reader: Reader, query: dict[str, Any], made: Any) -> str:
    series = reader.json("series/", query)["series"]
    kept = sum(_has(one["points"], made.spikes[one["run"]]) for one in series)
    assert kept == len(series) == len(made.runs), f"{kept} of {len(made.runs)} spikes kept"
    assert all(len(one["points"]["step"]) <= 1000 for one in series)
    return f"{kept}/{len(made.runs)}"


def _has(points: dict[str, list[Any]], step: int) -> bool:
    return step in points["step"] and (points["value"][points["step"].index(step)] or 0) > 100


def _check_exact(body: bytes, spike: int) -> None:
    import pyarrow as pa

    table = pa.ipc.open_stream(io.BytesIO(body)).read_all()
    assert table.num_rows == LONG
    assert table["value"].to_numpy().argmax() == spike


def _table(reader: Reader, kind: str, runs: int, bound: Bound) -> dict[str, Any]:
    asked = {f"{runs:,} runs: {name}": query for name, query in TABLE.items()}
    return _told({name: _ask(reader, kind, bound, "runs/", query, CHART) for name, query in asked.items()})


def _told(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, figure in found.items():
        print(
            f"{name:60s} {figure['ms']:8.2f} ms of {figure['bound']:3.0f}   cpu {figure['cpu']:7.2f}  "
            f"{figure['bytes']:9,} B{mark(name, figure['ms'] <= figure['bound'])}",
            flush=True,
        )
    return found


def _live(reader: Reader, seconds: int = 5) -> dict[str, Any]:
    """What one viewer of one chart of a run of 20 and of 1,000 steps a second is sent, as the run page asks."""
    from experiments import lifecycle

    sent = {}
    for speed in (20, 1000):
        held = _running(speed * seconds)
        horizon, total = -1, 0
        for second in range(seconds):
            low, high = second * speed, (second + 1) * speed
            lifecycle.commit(held, low, high, [_frame(low, high)])
            query = {"runs": held.run_id, "names": "loss/*", "max_points": LIVE_POINTS // 2, "since_step": horizon}
            body = reader.get("series/", query)
            total, horizon = total + len(body), high - 1
        sent[f"{speed} steps/s"] = total // seconds
        what = f"live chart of a run of {speed:5,} steps a second"
        print(f"{what}: {total // seconds:,} B a second{mark(what, total / seconds <= LIVE_BYTES)}", flush=True)
    return {"bytes a second": sent, "bound": LIVE_BYTES}


def _running(steps: int) -> Any:
    from experiments import lifecycle
    from experiments.models import Project
    from experiments.submissions.submission import plan

    pool = f"live.{steps}"
    spec = {
        "task": "classify",
        "data": {"dataset": "digits"},
        "optimizer": {"warmup_steps": 0},
        "train": {"steps": steps},
        "resources": {"pool": pool},
    }
    lifecycle.submit(plan({"name": pool, "spec": spec}), project=Project.objects.get(name="series"), user=None)
    claim = lifecycle.claim([pool], lifecycle.register_worker(pool, "bench", 1, [pool], 1, "none", {}))
    assert claim is not None
    lifecycle.start(claim.held, pid=0, device="none", info={})
    return claim.held


def _frame(low: int, high: int) -> Any:
    import numpy as np

    from experiments import store

    random, steps = np.random.default_rng(low), np.arange(low, high)
    values = random.standard_normal((high - low, 2), np.float32)
    return store.Incoming("train", ["loss/total", "loss/kl"], steps, steps / 20.0, values)


if __name__ == "__main__":
    main()
