"""Load and memory of the trainer's process and device, for each flush."""

from __future__ import annotations

import math
import os
import resource
import time
from pathlib import Path

import torch

_PAGE = resource.getpagesize()


class SystemMeter:
    """CPU use since the last reading (100 % is one core), resident memory, and the GPU's memory and load."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names = ["system/cpu_percent", "system/rss_mb"]
        if device.type == "cuda":
            self.names += ["system/gpu_memory_mb"] + (["system/gpu_percent"] if _has_load(device) else [])
        self._last = (time.monotonic(), _cpu_seconds())

    def read(self) -> dict[str, float]:
        now, used = time.monotonic(), _cpu_seconds()
        share = 100 * (used - self._last[1]) / max(now - self._last[0], 1e-6)
        self._last = (now, used)
        values = {"system/cpu_percent": share, "system/rss_mb": _resident_bytes() / 2**20}
        if self.device.type == "cuda":
            values["system/gpu_memory_mb"] = torch.cuda.memory_reserved(self.device) / 2**20
        if "system/gpu_percent" in self.names:
            values["system/gpu_percent"] = _load(self.device)
        return values


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _has_load(device: torch.device) -> bool:
    """GPU load needs NVIDIA's management library for Python, which is optional, and a whole GPU: a slice has none."""
    return not math.isnan(_load(device))


def _load(device: torch.device) -> float:
    """Percent; NaN where the library reports none. Its errors share no class with torch's."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:
        return math.nan
