"""Aim, in process: its SDK on a local repository."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

from aim import Repo, Run
from aim.sdk.types import QueryReportMode
from aim.storage.context import Context

from . import work

TABLE_S = 90  # creating a run takes a while


def main() -> None:
    report, folder, sizes = work.Report(), work.folder(), work.sizes()
    logging.disable(logging.WARNING)
    repo = Repo.from_path(str(folder), init=True)

    def begin(experiment: str) -> Run:
        return Run(
            experiment=experiment,
            repo=repo,
            system_tracking_interval=None,
            capture_terminal_logs=False,
            log_system_params=False,
        )

    def put(experiment: str, values: list[float], **params: str) -> str:
        run = begin(experiment)
        for name, value in params.items():
            run[name] = value
        for step, value in enumerate(values):
            run.track(value, name="loss", step=step)
        run.close()
        return str(run.hash)

    run = begin("write")
    report.write("Run.track", lambda step, row: run.track(row, step=step), run.close, folder, sizes.steps // 4)
    long = put("long", work.curve(sizes.long))
    for number in range(sizes.runs):
        put("compare", work.curve(sizes.short, number))
    began, made = time.monotonic(), 0
    while made < sizes.table and time.monotonic() - began < TABLE_S:
        put("table", work.curve(3, made), variant=work.VARIANTS[made % 4], **{f"p{at}": str(at) for at in range(9)})
        made += 1
    # A run can be read once it is indexed, which `aim up` does beside; here it is done at once.
    aim = str(Path(sys.executable).parent / "aim")
    subprocess.run([aim, "storage", "--repo", str(folder), "reindex"], input=b"y\n", stdout=sys.stderr, check=True)
    _read(report, Repo(str(folder)), long, made)


def _read(report: work.Report, repo: Repo, long: str, made: int) -> None:
    quiet = {"report_mode": QueryReportMode.DISABLED}

    def series(points: int | None) -> list[list[float]]:
        values = Run(long, repo=repo, read_only=True).get_metric("loss", Context({})).data.view("val")
        return [(values.sample(points) if points else values).numpy()[1][0].tolist()]

    def compared() -> list[list[float]]:
        runs = repo.query_metrics("metric.name == 'loss' and run.experiment == 'compare'", **quiet).iter_runs()
        return [one.data.view("val").sample(work.POINTS).numpy()[1][0].tolist() for run in runs for one in run]

    def table() -> list[list[float]]:
        runs = repo.query_runs("run.experiment == 'table' and run.variant == 'no_q'", **quiet).iter_runs()
        infos = [one.run.collect_sequence_info(sequence_types="metric")["metric"][0] for one in runs]
        return sorted([[info["values"]["last"]] for info in infos], reverse=True)[:50]

    report.read("exact", "in process", lambda: series(None))
    report.read("one", "in process, random sample", lambda: series(work.POINTS))
    report.read("compare", "in process, random sample", compared, repeats=3)
    report.read("table", f"query_runs of {made:,} runs", table, repeats=3)


if __name__ == "__main__":
    main()
    work.end()
