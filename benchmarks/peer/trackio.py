"""trackio: its package on local SQLite, and its own server where only that reduces a series."""

from __future__ import annotations

import os
import random
import sys

from . import work

RUNS_A_REQUEST = 64  # more it refuses
SQL = """SELECT c.run_name, json_extract(m.metrics, '$.loss') AS loss FROM configs c
JOIN (SELECT run_id, max(id) AS last FROM metrics GROUP BY run_id) newest ON newest.run_id = c.run_id
JOIN metrics m ON m.id = newest.last
WHERE json_extract(c.config, '$.variant') = 'no_q' ORDER BY loss DESC LIMIT 50"""


def main() -> None:
    report, folder, sizes = work.Report(), work.folder(), work.sizes()
    os.environ.update(TRACKIO_DIR=str(folder / "db"), HF_HUB_OFFLINE="1")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    def begin(name: str) -> None:
        trackio.init(project="write", name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False)

    begin("first")
    report.write("trackio.log", lambda step, row: trackio.log(row, step=step), trackio.finish, folder, sizes.steps)

    def put(project: str, run: str, values: list[float], config: dict[str, str] | None = None) -> None:
        rows = [{"loss": value} for value in values]
        SQLiteStorage.bulk_log(project, run, rows, steps=list(range(len(rows))), config=config)

    put("long", "long", work.curve(sizes.long))
    for number in range(sizes.runs):
        put("compare", f"run{number}", work.curve(sizes.short, number))
    noise = random.Random(2)
    for number in range(sizes.table):
        config = {"variant": work.VARIANTS[number % 4], **{f"p{at}": str(at) for at in range(9)}}
        put("table", f"run{number}", [noise.random() for _ in range(3)], config)

    report.read(
        "exact",
        "get_metric_values",
        lambda: [[row["value"] for row in SQLiteStorage.get_metric_values("long", "long", "loss")]],
    )
    report.read("table", "SQL", lambda: [[row["loss"]] for row in SQLiteStorage.query_project("table", SQL)["rows"]])
    port = work.free_port()
    code = f"import trackio; trackio.show(open_browser=False, block_thread=True, server_port={port})"

    def reduced(project: str, runs: list[str]) -> list[list[float]]:
        found = []
        for low in range(0, len(runs), RUNS_A_REQUEST):
            some = [{"run": run} for run in runs[low : low + RUNS_A_REQUEST]]
            body = {"project": project, "runs": some, "max_points": work.POINTS, "scalar_only": True}
            answer = work.ask(f"http://127.0.0.1:{port}/api/get_logs_batch", body)
            found += [[row["loss"] for row in one["logs"]] for one in answer["data"]]
        return found

    with work.serving([sys.executable, "-u", "-c", code], port, folder / "server.log"):
        report.read("one", "HTTP get_logs_batch", lambda: reduced("long", ["long"]))
        runs = [f"run{number}" for number in range(sizes.runs)]
        report.read(
            "compare", f"HTTP get_logs_batch, {RUNS_A_REQUEST} runs a request", lambda: reduced("compare", runs)
        )


if __name__ == "__main__":
    main()
    work.end()
