"""What ten and a hundred times the data costs a reader over HTTP, and how much memory an export takes.

`python -m benchmarks.growth [sqlite|postgres] [--strict]` fills a temporary database and requests a warm gunicorn for

- 1,000 points of one series of 10⁵, 10⁶ and 10⁷ steps (the longest may take twice the time of the shortest);
- one series of a run among 10, 100 and 1,000 other runs, and 1, 10 and 100 runs at once;
- one series of a run of 10, 100 and 1,000 series, and the heat-map of all of them;
- every point of a run of 10⁷ steps, and of 144 series × 10⁵ steps, as Arrow, CSV and Parquet: the highest resident
  memory of a web process over what it had before (bound 100 MB).

Requests that are compared are sent in turn, so that a busy moment of the machine affects all of them.
ATTN_BENCH_SCALE=10 divides the steps and the runs, for a quick look. Figures go to benchmarks/results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from .stage.bounds import asked, each, mark, settle
from .stage.database import KINDS, analyse, database
from .stage.memory import extra_peak
from .stage.results import keep
from .stage.web import Reader, web

SCALE = int(os.environ.get("ATTN_BENCH_SCALE", "1"))
STEPS = [10**5 // SCALE, 10**6 // SCALE, 10**7 // SCALE]
AMONG = [10, 100, max(1000 // SCALE, 150)]
WIDTHS = [10, 100, 1000]
SHORT = 10_000  # steps of the runs and series that are many
WIDE = 144
TWICE, EXPORT_MB = 2.0, 100.0
ARROW = "application/vnd.apache.arrow.stream"
REPEATS = 31
NAME = "loss/total"


@dataclass(frozen=True)
class Filled:
    """Run ids: by steps, by number of series, and the one that an export of many series takes."""

    long: dict[int, int]
    wide: dict[int, int]
    export: int


def main() -> None:
    kinds = asked(KINDS)
    if len(kinds) > 1:  # a process each: Django's settings stay
        each("benchmarks.growth", kinds)
        return
    measure(kinds[0])
    settle()


def measure(kind: str) -> None:
    began, load = time.monotonic(), os.getloadavg()[0]
    with database(kind) as folder:
        filled = _fill()
        analyse()
        with web(folder) as reader:
            figures = {"export": _export(reader, filled)}  # first: on a server that has held nothing large yet
            figures |= {"steps": _steps(reader, filled), "series": _series(reader, filled), "runs": _runs(reader)}
    keep(f"growth {kind}", {"load_before": round(load, 2), "seconds": round(time.monotonic() - began), **figures})


def _made(name: str, **size: int) -> list[int]:
    from experiments.models import Project
    from experiments.operations.demo_runs import fill

    return fill(Project.objects.create(name=name), **size).runs


def _fill() -> Filled:
    long = {steps: _made(f"{steps} steps", runs=1, steps=steps, series=1, seed=steps)[0] for steps in STEPS}
    wide = {width: _made(f"{width} series", runs=1, steps=SHORT, series=width, seed=width)[0] for width in WIDTHS}
    return Filled(long, wide, _made("wide", runs=1, steps=STEPS[0], series=WIDE, seed=WIDE)[0])


def _one(run: int) -> dict[str, Any]:
    return {"runs": run, "names": NAME, "max_points": 1000}


def _steps(reader: Reader, filled: Filled) -> dict[str, Any]:
    requests = {steps: _request(reader, "series/", _one(run)) for steps, run in filled.long.items()}
    medians = _in_turn(requests)
    ratio = medians[STEPS[-1]] / medians[STEPS[0]]
    _print("1,000 points of one series of steps", medians)
    what = f"{STEPS[-1]:,} steps, × the time of {STEPS[0]:,}"
    print(f"{what:60s} {ratio:8.2f} of {TWICE:.0f}{mark(what, ratio <= TWICE)}", flush=True)
    return {"one series, ms": medians, "ratio": round(ratio, 3), "bound": TWICE}


def _series(reader: Reader, filled: Filled) -> dict[str, Any]:
    one = _in_turn({width: _request(reader, "series/", _one(run)) for width, run in filled.wide.items()})
    _print("one series of a run of series", one)
    grids = {width: _grid(reader, run) for width, run in filled.wide.items()}
    heat = _in_turn(grids, 11)
    _print("heat-map of 400 columns of series", heat)
    return {"one series, ms": one, "heat-map, ms": heat}


def _grid(reader: Reader, run: int) -> Callable[[], bytes]:
    return _request(reader, "series/grid/", {"run": run, "names": "**", "columns": 400})


def _runs(reader: Reader) -> dict[str, Any]:
    """The same request among more and more runs; then more and more runs in one request."""
    runs: list[int] = []
    among: dict[int, float] = {}
    for wanted in AMONG:
        runs += _made(f"{wanted} runs", runs=wanted - len(runs), steps=SHORT, series=1, seed=wanted)
        analyse()
        reader.hang_up()
        among |= _in_turn({wanted: _request(reader, "series/", _one(runs[0]))})
    _print("one series of 10,000 steps among runs", among)
    together = _in_turn({many: _request(reader, "series/", _compare(runs[:many])) for many in (1, 10, 100)}, 11)
    _print("compare, 10,000 steps to 1,000 points, of runs", together)
    return {"one series among, ms": among, "compare, ms": together}


def _compare(runs: list[int]) -> dict[str, Any]:
    return {"runs": ",".join(map(str, runs)), "names": NAME, "max_points": 1000}


def _export(reader: Reader, filled: Filled) -> dict[str, Any]:
    runs = {f"{STEPS[-1]:,} steps": filled.long[STEPS[-1]], f"{WIDE} × {STEPS[0]:,}": filled.export}
    small = filled.long[STEPS[0]]
    return {
        f"{size}, {form}": _height(reader, f"export of {size}, {form}", form, run, small)
        for size, run in runs.items()
        for form in ("arrow", "csv", "parquet")
    }


def _height(reader: Reader, what: str, form: str, run: int, small: int) -> dict[str, float]:
    for _ in range(4):  # so that every web process has imported what it needs
        reader.drain(f"runs/{small}/export/", {"format": form})
    sizes, began = [], time.perf_counter()
    rose = extra_peak(reader.processes, lambda: sizes.append(reader.drain(f"runs/{run}/export/", {"format": form})))
    took = time.perf_counter() - began
    line = f"{what:60s} {rose:8.1f} MB of {EXPORT_MB:.0f}   {took:6.1f} s  {sizes[0]:,} B"
    print(f"{line}{mark(what, rose < EXPORT_MB)}", flush=True)
    return {"MB": round(rose, 1), "seconds": round(took, 2), "bytes": sizes[0], "bound": EXPORT_MB}


def _request(reader: Reader, path: str, query: Mapping[str, Any]) -> Callable[[], bytes]:
    return lambda: reader.get(path, query)


def _in_turn(requests: Mapping[int, Callable[[], bytes]], repeats: int = REPEATS) -> dict[int, float]:
    """Median wall time of each request, ms."""
    took: dict[int, list[float]] = {size: [] for size in requests}
    for at in range(repeats + 3):
        for size, request in requests.items():
            began = time.perf_counter()
            request()
            if at >= 3:  # the first warm up
                took[size].append((time.perf_counter() - began) * 1000)
    return {size: round(median(times), 2) for size, times in took.items()}


def _print(what: str, medians: Mapping[int, float]) -> None:
    figures = "   ".join(f"{size:,}: {ms:.2f} ms" for size, ms in medians.items())
    print(f"{what:48s} {figures}", flush=True)


if __name__ == "__main__":
    main()
