"""TensorBoard: files of events written by tensorboardX, read by its server, which keeps a random sample in memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

from . import work

READY_S = 300


def main() -> None:
    report, folder, sizes = work.Report(), work.folder(), work.sizes()
    writer = SummaryWriter(str(folder / "write" / "run"))

    def log(step: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    report.write("tensorboardX", log, writer.close, folder / "write", sizes.steps)
    _put(folder / "long" / "run0", work.curve(sizes.long))
    for number in range(sizes.runs):
        _put(folder / "compare" / f"run{number}", work.curve(sizes.short, number))

    def exact() -> list[list[float]]:
        events = EventAccumulator(str(folder / "long" / "run0"), size_guidance={"scalars": 0})
        events.Reload()
        return [[event.value for event in events.Scalars("loss")]]

    report.read("exact", "reads the file", exact, repeats=3)
    _served(report, "one", folder / "long", 1, sizes.long)
    _served(report, "compare", folder / "compare", sizes.runs, sizes.short)


def _put(folder: Path, values: list[float]) -> None:
    writer = SummaryWriter(str(folder))
    for step, value in enumerate(values):
        writer.add_scalar("loss", value, step)
    writer.close()


def _served(report: work.Report, name: str, folder: Path, runs: int, steps: int) -> None:
    port = work.free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1"]
    form = [("tag", "loss"), *(("runs", f"run{number}") for number in range(runs))]

    def fetch() -> dict[str, list[list[float]]]:
        way = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars_multirun"
        found: dict[str, list[list[float]]] = work.ask(way, form=form)
        return found

    with work.serving([*command, "--port", str(port)], port, folder.parent / f"{name}.log"):
        deadline = time.monotonic() + READY_S
        while not _whole(fetch, runs, steps):
            if time.monotonic() > deadline:
                raise RuntimeError(f"its server has not read everything in {READY_S} s")
            time.sleep(0.5)
        report.read(name, "HTTP, from memory", lambda: [[point[2] for point in one] for one in fetch().values()])


def _whole(fetch, runs: int, steps: int) -> bool:  # type: ignore[no-untyped-def]
    try:
        found = fetch()
    except OSError:
        return False
    return len(found) == runs and all(points[-1][1] == steps - 1 for points in found.values())


if __name__ == "__main__":
    main()
    work.end()
