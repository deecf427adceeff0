"""A run that floods what is kept of it, or finds the storage full, is told so once and still ends whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.models import Run
from experiments.states import Actor, State
from tests.worker import processes
from tests.worker.disks import small_disk
from tests.worker.runs import assert_whole, ended, queue, reaches, recorded
from tests.worker.scripted import NAMES

Hire = Callable[..., processes.Worker]


def test_a_flood_of_log_series_and_files_is_capped_with_one_warning_each(hire: Hire) -> None:
    limits = {"ATTN_MAX_LOG_BYTES": "2000", "ATTN_MAX_SERIES": "10", "ATTN_MAX_ARTIFACTS": "5"}
    hire("flood", script={"log_lines": 20, "names": 50, "pictures": 4}, **limits).ready()
    run = ended(queue(steps=30, every=10, pool="flood"))
    assert (run.state, run.crash_count, run.fence) == (State.SUCCEEDED, 0, 1)
    warnings = list(run.events.filter(kind__endswith="capped").order_by("kind"))
    assert [event.kind for event in warnings] == ["files capped", "log capped", "series capped"]
    assert {event.actor for event in warnings} == {Actor.SUPERVISOR}
    files, log, series = (event.message for event in warnings)
    assert "more than 5 files (ATTN_MAX_ARTIFACTS)" in files
    assert "ATTN_MAX_LOG_BYTES" in log
    assert "more than 10 series (ATTN_MAX_SERIES)" in series
    assert "flood/more/8" in series
    assert run.artifacts.count() == 5
    assert sum(map(len, run.logs.values_list("text", flat=True))) < 3000
    kept = recorded(run)
    assert len(kept) == 10
    assert all(kept[name].steps.tolist() == list(range(30)) for name in NAMES)


def test_a_full_storage_is_told_each_time_while_the_run_waits_and_it_goes_on_when_there_is_room(
    hire: Hire, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        worker = hire("full", script={"hold_at": 15}, ATTN_ARTIFACTS=str(disk)).ready()
        ballast = disk / "ballast"
        run = queue(steps=60, every=10, pool="full")
        for outage, (held, then) in enumerate([(15, {"hold_at": 35}), (35, {})], start=1):
            reaches(run, held)
            with ballast.open("wb", buffering=0) as file:
                fill(file.fileno())
            worker.play(then)
            processes.wait_for(lambda outage=outage: refusals(run).count() == outage, 20)  # type: ignore[misc]
            ballast.unlink()
        assert_whole(ended(run))
        assert all("No space left" in told.message for told in refusals(run))
        assert run.attempts.count() == 1
        storage = run.events.filter(kind__startswith="storage").order_by("pk").values_list("kind", flat=True)
        assert list(storage) == ["storage refuses", "storage answers"] * 2


def refusals(run: Run) -> Any:
    return run.events.filter(kind="storage refuses")


def fill(file: int) -> None:
    """Write until nothing more fits."""
    try:
        while os.write(file, bytes(4096)):
            pass
    except OSError:
        return
