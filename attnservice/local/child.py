"""One process of the local service: started in its own session, watched, restarted with a back-off."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attnservice.local.parent_death import die_with_parent

LONGEST_BACKOFF_S = 30.0
HEALTHY_S = 60.0  # after this long it restarts at once and the back-off is reset
LARGEST_LOG = 20 * 2**20


class Child:
    """`ready` returns when the process can be used. `patience_s` is how long it may take to stop."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        logs: Path,
        *,
        ready: Callable[[], None] | None = None,
        patience_s: float = 15.0,
    ) -> None:
        self.name, self.command, self.patience_s = name, list(command), patience_s
        self.log = logs / f"{name}.log"
        self._ready = ready or (lambda: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._started, self._failures, self._next_start = 0.0, 0, 0.0

    def start(self) -> None:
        """In its own session: Ctrl-C in the terminal reaches the launcher alone. The kernel kills it with us."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._started = time.monotonic()
        self._ready()

    def revive(self) -> str | None:
        """Restart the process if it died, after a pause that doubles. Returns a message for the user, if any."""
        if self._process is None:
            return self._retry() if time.monotonic() >= self._next_start else None
        status = self._process.poll()
        if status is None:
            return None
        lived = time.monotonic() - self._started
        self._failures = 0 if lived > HEALTHY_S else self._failures + 1
        pause = min(2.0 ** (self._failures - 1), LONGEST_BACKOFF_S) if self._failures else 0.0
        self._process, self._next_start = None, time.monotonic() + pause
        return f"{_cause(status)} after {lived:.0f} s; restarting in {pause:.0f} s. Its log: {self.log}"

    def _retry(self) -> str:
        try:
            self.start()
        except (OSError, RuntimeError) as error:
            return f"did not start: {error}"
        return "restarted"

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        if self._process and self.alive():
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> bool:
        """True if it ended by itself within its patience; otherwise kills it."""
        if self._process is None:
            return True
        try:
            self._process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


def _cause(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
