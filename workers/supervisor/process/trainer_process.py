"""A trainer process: starts it, sends it messages, reads from it, and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from django.conf import settings

from workers.protocol import PARENT_PID, PIPE_FD, Orders, Stop, send
from workers.supervisor import limits
from workers.supervisor.process import source
from workers.supervisor.process.inbox import Inbox, fill
from workers.supervisor.process.journal import Journal, copy_output
from workers.supervisor.process.spool import Spool

ROOT = Path(__file__).resolve().parents[3]
# A trainer exchanges messages with its supervisor only: it gets no access to database, broker or storage.
_WITHHELD = ("ATTN_", "DATABASE_", "REDIS_URL", "DJANGO_", "CELERY_", "PG")


class Trainer:
    """One trainer process in its own session, and the two threads that read from it. Create it in the main thread: the
    parent-death signal follows the thread that started the child."""

    def __init__(self, gpu: str | None = None) -> None:
        self.journal = Journal(settings.ATTN_MAX_LOG_BYTES)
        self.inbox = Inbox(limits.INBOX_BYTES, Spool(settings.ATTN_SCRATCH, limits.SPOOL_MB * 2**20))
        self.born = time.monotonic()
        self.source = source.facts()  # the code at the time the trainer loads it
        self._arrival = threading.Event()
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process, read = spawn([limits.TRAINER], gpu, **output)
        self.pid = self.process.pid
        self._listen(read)

    def _listen(self, read: int) -> None:
        assert self.process.stdout is not None
        pipe = os.fdopen(read, "rb", buffering=2**20)
        for target, arguments in (
            (fill, (self.inbox, pipe, self._arrival.set)),
            (copy_output, (self.journal, self.process.stdout)),
        ):
            threading.Thread(target=target, args=arguments, daemon=True, name=f"trainer-{self.pid}").start()

    @property
    def ready(self) -> bool:
        """Whether a message has arrived; the first is `Ready`."""
        return self._arrival.is_set()

    @property
    def alive(self) -> bool:
        """Whether it runs. A dead process stays a zombie, so that its id is not reused."""
        if self.process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def send(self, message: Orders | Stop) -> None:
        """Send a message. A dead trainer is noticed when its pipe closes."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            send(self.process.stdin, message)  # type: ignore[arg-type]  # a buffered writer is a BinaryIO

    def wait(self, within: float) -> None:
        """Wait for its end, at most so many seconds."""
        deadline = time.monotonic() + within
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        self._signal(signal.SIGKILL)

    def end(self, grace: float = limits.TERM_GRACE_S) -> int:
        """End every process of the group; the exit status, negative for a signal."""
        if grace > 0 and self.alive:
            self._signal(signal.SIGTERM)
            self.wait(grace)
        self.kill()
        status = self.process.wait()
        self.inbox.close()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        return status

    def _signal(self, number: int) -> None:
        if self.process.returncode is None:  # not reaped yet, so the group's id is not reused
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def spawn(module: list[str], gpu: str | None, **output: int) -> tuple[subprocess.Popen[bytes], int]:
    """A module as a child in a session of its own, and the pipe of its messages. Call it from the main thread."""
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env=environment(write, gpu),
            pass_fds=(write,),
            start_new_session=True,
            **output,  # type: ignore[call-overload]  # stdout and stderr
        )
    finally:
        os.close(write)  # else the reader of a child that dies early would wait forever
    return process, read


def environment(pipe: int, gpu: str | None) -> dict[str, str]:
    """A trainer's environment variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    kept |= {PIPE_FD: str(pipe), PARENT_PID: str(os.getpid()), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    kept["ATTN_DATA_ROOT"] = str(settings.ATTN_DATA_ROOT)
    kept["ATTN_MODELS_ROOT"] = str(settings.ATTN_MODELS_ROOT)
    if gpu is not None:
        kept["CUDA_VISIBLE_DEVICES"] = gpu
    return kept


def describe_exit(status: int) -> str:
    """An exit status as text."""
    if status >= 0:
        return f"the trainer ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = "; if nobody sent it, the machine ran out of memory" if -status == signal.SIGKILL else ""
    return f"the trainer was killed by {name}{hint}"
