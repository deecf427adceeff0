"""How much memory a request takes at its height, as the kernel counts it (Linux)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

RESET_PEAK = "5"  # what clear_refs calls the peak of resident memory; see proc(5)


def extra_peak(processes: Sequence[psutil.Process], work: Callable[[], object]) -> float:
    """MB (10⁶ bytes) by which the resident memory of one of the processes rose over where it stood, at most."""
    before = {process.pid: process.memory_info().rss for process in processes}
    for pid in before:
        Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    work()
    return max(_peak(pid) - stood for pid, stood in before.items()) / 1e6


def _peak(pid: int) -> int:
    """The highest resident memory since the peak was reset, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
