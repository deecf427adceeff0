"""Real worker and reconciler processes for tests, and how to look for what they leave behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from attnservice.local.parent_death import die_with_parent
from tests.environment import OWN

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = {
    "ATTN_LEASE_S": "6",
    "ATTN_BEAT_S": "1",
    "ATTN_RECONCILE_S": "1",
    "ATTN_BACKOFF_S": "0",
    "ATTN_STOP_GRACE_S": "10",
    "OMP_NUM_THREADS": "1",
}
SCRIPTED = "tests.worker.scripted"
T = TypeVar("T")
_number = itertools.count(1)


def wait_for(look: Callable[[], T], within: float = 60.0, what: str = "") -> T:
    """The first true answer of `look`, or a failure with what was seen last."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {within} s: {what or look}; last seen: {seen!r}"
        time.sleep(0.05)


class Process:
    """A child process of the test, with its output in a file."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.output = OWN / f"{name}-{time.monotonic_ns()}.log"
        self.popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **SHORT, "PYTHONPATH": str(REPOSITORY), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self.output.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """Every living descendant."""
        try:
            return [child for child in psutil.Process(self.pid).children(recursive=True) if is_alive(child.pid)]
        except psutil.NoSuchProcess:
            return []

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 60.0) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not stop within {within} s:\n{self.log()[-3000:]}") from None


class Worker(Process):
    """A Celery worker, started as the documentation says."""

    def __init__(self, pool: str, *, slots: int = 1, script: dict[str, Any] | None = None, **environment: str) -> None:
        self.script = OWN / f"script-{pool}-{time.monotonic_ns()}.json"
        self.play(script or {})
        if script is not None:
            environment |= {"ATTN_TRAINER": SCRIPTED, "SCRIPTED_TRAINER": str(self.script)}
        self.node = f"{pool}@test{next(_number)}"
        options = ["-Q", pool, "-c", str(slots), "-n", self.node, "-l", "INFO"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        super().__init__(
            f"worker-{pool}", ["celery", "-A", "attnservice.celery", "worker", *options, *quiet], environment
        )

    def play(self, script: dict[str, Any]) -> None:
        """What the scripted trainers do next."""
        fresh = self.script.with_suffix(".new")  # renamed: a trainer never reads half of it
        fresh.write_text(json.dumps(script))
        fresh.rename(self.script)

    def ready(self) -> Worker:
        wait_for(lambda: " ready." in self.log() or self.popen.poll() is not None, 30, f"{self.name} is ready")
        assert self.popen.poll() is None, self.log()
        return self

    def slots(self) -> list[psutil.Process]:
        return [each for each in psutil.Process(self.pid).children() if is_alive(each.pid)]

    def trainers(self) -> list[int]:
        """Pids of the trainers, the waiting ones too."""
        return [each.pid for each in self.family() if _is_trainer(each)]


def start_reconciler(**environment: str) -> Process:
    settings = {"DJANGO_SETTINGS_MODULE": "attnservice.settings", **environment}
    return Process("reconciler", ["django", "reconciler"], settings)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_trainer(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return SCRIPTED in command or "workers.trainer" in command
