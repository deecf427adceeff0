"""Other trackers and ours at the same work in one go (`benchmarks.peer.work` says what it is).

`python -m benchmarks.peers --install` makes an environment for each under .peers (`make bench-peers`);
`python -m benchmarks.peers [mlflow trackio aim tensorboard wandb]` measures those that are there. Ours is asked over
HTTP (SQLite, synchronous=FULL) before and after every peer, and a ratio is the peer's time to the mean of those two, so
that a change of the machine's load falls on both. Figures go to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from statistics import mean
from typing import Any

from .peer import work
from .stage.database import ROOT, analyse, database
from .stage.results import keep
from .stage.web import Reader, web
from .store_http import ARROW

HOME = ROOT / ".peers"
PACKAGES = {
    "mlflow": ["mlflow"],
    "trackio": ["trackio"],
    "aim": ["aim"],
    "tensorboard": ["tensorboard", "tensorboardX", "setuptools<81"],
    "wandb": ["wandb"],
}
LIMIT_S = 1800
WORKS = {
    "write": "training thread, 144 series, ms a step",
    "one": "one series of 100,000 steps to 1,000 points",
    "compare": "compare 100 runs × 10,000 steps to 1,000 points",
    "exact": "exact history of 100,000 steps",
    "table": "1,000 runs: filter by a parameter, sort by a metric",
}
Figures = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peers", nargs="*", help="which; all that are installed where none is named")
    parser.add_argument("--install", action="store_true", help="make their environments under .peers")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PACKAGES):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}")
    if options.install:
        install(options.peers or list(PACKAGES))
        return
    there = [name for name in options.peers or PACKAGES if python_of(name).exists()]
    if not there:
        print("No peer is installed: `make bench-peers` makes their environments.")
        return
    measure(there)


def install(names: list[str]) -> None:
    """An environment each, because their requirements contradict each other."""
    for name in names:
        if not python_of(name).exists():
            print(f"installing {name}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True)
        subprocess.run([str(python_of(name)), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)


def python_of(name: str) -> Path:
    return HOME / name / "bin" / "python"


def measure(names: list[str]) -> None:
    with database("sqlite") as folder:
        ours = Ours()
        with web(folder) as reader:
            before = ours.measure(reader)
            section: dict[str, Any] = {"ours": [before]}
            for name in names:
                reader.hang_up()
                theirs = _peer(name)
                after = ours.measure(reader)
                section["ours"].append(after)
                section[name] = {"version": _version(name), **_beside(theirs, before, after)}
                before = after
    _print(section, names)
    keep("peers", section)


class Ours:
    """The same amount of work in our store."""

    def __init__(self) -> None:
        from experiments.models import Project
        from experiments.operations.demo_runs import fill

        from . import run_table

        sizes = work.sizes()
        project = Project.objects.create(name="series")
        self.long = fill(project, runs=1, steps=sizes.long, series=1, seed=1)
        self.short = fill(project, runs=sizes.runs, steps=sizes.short, series=1, seed=2)
        run_table.fill(sizes.table)
        analyse()
        self.writers = 0

    def measure(self, reader: Reader) -> Figures:
        """Every work once more, a few seconds in all."""
        from .store_write import step_ms

        long, points = {"runs": self.long.runs[0], "names": "loss/total"}, {"max_points": work.POINTS}
        compare = {"runs": ",".join(map(str, self.short.runs)), "names": "loss/total", **points}
        table = {"param.model.attention.variant": "no_q", "ordering": "-metric.eval/m00"}
        return {
            "write": {"ms": round(step_ms(), 4), "points_a_second": self._durable()},
            "one": self._read(reader, {**long, **points}),
            "compare": self._read(reader, compare),
            "exact": self._timed(reader, "series/", {**long, "max_points": work.sizes().long}, ARROW),
            "table": self._timed(reader, "runs/", table, "application/json"),
        }

    def _durable(self, seconds: float = 3.0) -> int:
        """Points a second of one writer until they are committed and sealed."""
        from .stage.writers import Writer

        self.writers += 1
        writer, began = Writer(self.writers), time.perf_counter()
        writer.go(seconds)
        return round(writer.points / (time.perf_counter() - began))

    def _read(self, reader: Reader, query: dict[str, Any]) -> dict[str, Any]:
        series = reader.json("series/", query)["series"]
        spikes = sum(max(value or 0 for value in one["points"]["value"]) > 100 for one in series)
        return {**self._timed(reader, "series/", query, "application/json"), "spikes": spikes, "series": len(series)}

    @staticmethod
    def _timed(reader: Reader, path: str, query: dict[str, Any], accept: str) -> dict[str, Any]:
        return reader.time(lambda: reader.get(path, query, accept), 15)


def _peer(name: str) -> Figures:
    """Its figures by work; those of a peer that failed are the ones it came to."""
    print(f"{name} …", flush=True)
    with tempfile.TemporaryDirectory(prefix="attn-peer-") as scratch:
        command = [str(python_of(name)), "-m", f"benchmarks.peer.{name}", scratch]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    found = {line.pop("work"): line for line in map(json.loads, ended.stdout.splitlines())}
    if ended.returncode:
        print(f"  {name} failed: {ended.stderr.strip()[-600:]}", flush=True)
    return found


def _beside(theirs: Figures, before: Figures, after: Figures) -> Figures:
    for name, figure in theirs.items():
        ours = mean([before[name]["ms"], after[name]["ms"]])
        figure |= {"ours ms": round(ours, 4), "ratio": round(figure["ms"] / ours, 1)}
        if name == "write":
            durable = mean([before[name]["points_a_second"], after[name]["points_a_second"]])
            figure |= {
                "ours points a second": round(durable),
                "durable ratio": round(durable / figure["points_a_second"], 1),
            }
    return theirs


def _version(name: str) -> str:
    (packages,) = (HOME / name / "lib").glob("python3*/site-packages")
    found = {one.metadata["Name"].lower(): one.version for one in distributions(path=[str(packages)])}
    return found[PACKAGES[name][0]]


def _print(section: dict[str, Any], names: list[str]) -> None:
    for key, title in WORKS.items():
        print(f"\n{title}: ours {mean(one[key]['ms'] for one in section['ours']):.4g} ms")
        for name in names:
            if figure := section[name].get(key):
                spikes = f", {figure['spikes']} of {figure['series']} spikes kept" if "spikes" in figure else ""
                print(f"  {name:12s}{figure['ms']:12,.4g} ms  {figure['ratio']:10,.1f} ×  ({figure['how']}{spikes})")


if __name__ == "__main__":
    main()
