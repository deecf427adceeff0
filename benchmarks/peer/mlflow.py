"""MLflow on its SQLite store: its SDK, and its server where only that reduces a series."""

from __future__ import annotations

import sqlite3
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from . import work

BATCH = 1000  # the most metrics that one call takes
STEPS_A_CALL = BATCH // len(work.NAMES)


def main() -> None:
    report, folder, sizes = work.Report(), work.folder(), work.sizes()
    store = folder / "mlflow.db"
    client = MlflowClient(f"sqlite:///{store}")
    client.search_experiments()  # makes its tables
    _write(report, client, folder, sizes.steps // 4)
    long = _run(client, client.create_experiment("long"), work.curve(sizes.long))
    compared = _insert(client, store, sizes)
    table = client.create_experiment("table")
    for number in range(sizes.table):
        params = [("variant", work.VARIANTS[number % 4]), *((f"p{at}", str(at)) for at in range(9))]
        _run(client, table, work.curve(3, number), params)
    report.read("exact", "get_metric_history", lambda: [[m.value for m in client.get_metric_history(long, "loss")]])

    def found() -> list[list[float]]:
        runs = client.search_runs([table], "params.variant = 'no_q'", order_by=["metrics.loss DESC"], max_results=50)
        return [[run.data.metrics["loss"]] for run in runs]

    report.read("table", "search_runs", found)
    _served(report, store, folder, long, compared)


def _write(report: work.Report, client: MlflowClient, folder: Path, steps: int) -> None:
    run = client.create_run(client.create_experiment("write")).info.run_id
    waiting: list[Metric] = []

    def flush() -> None:
        if waiting:
            client.log_batch(run, metrics=waiting)
            waiting.clear()

    def log(step: int, row: dict[str, float]) -> None:
        now = time.time_ns() // 10**6
        waiting.extend(Metric(name, value, now, step) for name, value in row.items())
        if (step + 1) % STEPS_A_CALL == 0:
            flush()

    report.write(f"log_batch of {STEPS_A_CALL} steps, SQLite", log, flush, folder, steps)


def _run(client: MlflowClient, experiment: str, values: list[float], params: Sequence[tuple[str, str]] = ()) -> str:
    run, now = str(client.create_run(experiment).info.run_id), time.time_ns() // 10**6
    client.log_batch(run, params=[Param(*one) for one in params])
    for low in range(0, len(values), BATCH):
        part = values[low : low + BATCH]
        client.log_batch(run, metrics=[Metric("loss", v, now, low + at) for at, v in enumerate(part)])
    return run


def _insert(client: MlflowClient, store: Path, sizes: work.Sizes) -> list[str]:
    """The rows that log_batch would write, put into its tables directly: it would take minutes."""
    experiment, now, runs = client.create_experiment("compare"), time.time_ns() // 10**6, []
    with sqlite3.connect(store, timeout=60) as connection:
        for number in range(sizes.runs):
            connection.commit()
            run, values = str(client.create_run(experiment).info.run_id), work.curve(sizes.short, number)
            runs.append(run)
            rows = [("loss", value, now, run, step, 0) for step, value in enumerate(values)]
            columns = "key, value, timestamp, run_uuid, step, is_nan"
            connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.execute(f"INSERT INTO latest_metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows[-1])
    return runs


def _served(report: work.Report, store: Path, folder: Path, long: str, compared: list[str]) -> None:
    port = work.free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}"]
    command += ["--default-artifact-root", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    way = "ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"

    def reduced(runs: list[str]) -> list[list[float]]:
        query = [("run_ids", run) for run in runs] + [("metric_key", "loss"), ("max_results", str(work.POINTS))]
        answer = work.ask(f"http://127.0.0.1:{port}/{way}?{urllib.parse.urlencode(query)}")
        by_run: dict[str, list[float]] = {run: [] for run in runs}
        for metric in answer["metrics"]:
            by_run[metric["run_id"]].append(metric["value"])
        return list(by_run.values())

    with work.serving(command, port, folder / "server.log"):
        report.read("one", "HTTP get-history-bulk-interval", lambda: reduced([long]))
        report.read("compare", "HTTP get-history-bulk-interval", lambda: reduced(compared))


if __name__ == "__main__":
    main()
    work.end()
