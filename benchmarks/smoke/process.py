"""A trainer process as a worker's supervisor starts it: `python -m workers.trainer`, orders on its standard input,
messages on a pipe. Left out is what needs the service: claim, lease, fence and database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.smoke.received import Received
from experiments.spec import Spec, resolved
from workers.protocol import PARENT_PID, PIPE_FD, Failure, Message, Orders, read_message, send

ROOT = Path(__file__).resolve().parents[2]


def ordered(
    run: Spec,
    folder: Path,
    kill_at: Callable[[Message], bool] = lambda _message: False,
) -> Received:
    """Train in a process of its own, which gets SIGKILL as soon as a message says so. Raises RuntimeError with the
    trainer's own words where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders(run=1, fence=1, spec=resolved(run), scratch=str(folder))
    read_end, write_end = os.pipe()
    environment = {**os.environ, PIPE_FD: str(write_end), PARENT_PID: str(os.getpid()), "PYTHONPATH": _path()}
    command = [sys.executable, "-m", "workers.trainer"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=[write_end], env=environment, cwd=ROOT, start_new_session=True
    )
    os.close(write_end)
    assert process.stdin is not None
    received = Received()
    try:
        with os.fdopen(read_end, "rb") as pipe:
            if (ready := read_message(pipe)) is None:
                raise RuntimeError(f"the trainer ended with status {process.wait()} before it was ready")
            received(*ready)
            send(process.stdin, orders)  # type: ignore[arg-type]
            while (said := read_message(pipe)) is not None:
                received(*said)
                if kill_at(said[0]):
                    break
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
    if failures := received.of(Failure):
        raise RuntimeError(f"{failures[0].message}\n{failures[0].traceback}")
    return received


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
