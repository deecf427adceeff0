"""Facts about this machine for the page of workers, without importing torch."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import socket
import subprocess
from functools import cache
from typing import Any

import billiard
import psutil

from workers.supervisor.machine import installed

_QUERY = ("index", "uuid", "name", "memory.total", "memory.used", "utilization.gpu", "driver_version")


def host() -> str:
    return socket.gethostname()


def gpus() -> list[dict[str, str]]:
    """One mapping per GPU of `nvidia-smi`; empty without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(answer.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(_QUERY, row, strict=False)) for row in rows if row]


@cache
def visible_gpus() -> tuple[str, ...]:
    """The GPUs this worker may use, as CUDA names them: CUDA_VISIBLE_DEVICES, or all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip())
    # By UUID: CUDA counts from the fastest GPU and nvidia-smi by the bus, so an index is ambiguous.
    return tuple(gpu["uuid"] for gpu in gpus())


def gpu_of_this_slot() -> str | None:
    """One GPU per slot, chosen by the pool child's number. None on a machine without GPUs."""
    devices = visible_gpus()
    if not devices:
        return None
    index: int = getattr(billiard.current_process(), "index", 0)
    return devices[index % len(devices)]


def device() -> str:
    """A short description of the machine's devices."""
    names = sorted({gpu["name"] for gpu in gpus()})
    if names and visible_gpus():
        return f"{len(visible_gpus())} × {', '.join(names)}"
    return f"CPU, {psutil.cpu_count()} cores ({platform.machine()})"


def facts() -> dict[str, Any]:
    """Cores, memory, versions, GPUs."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "gpus": gpus(),
        "plugins": installed.names(),
    }
