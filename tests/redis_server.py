"""A real Redis server for tests, on a unix socket; it can be killed, frozen and brought back."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from attnservice.local import broker
from attnservice.local.parent_death import die_with_parent


class RedisServer:
    def __init__(self, folder: Path, path: Path | None = None, *, options: list[str] | None = None) -> None:
        self.folder = folder
        self.path = path or broker.socket_path(folder)
        self.options = options or []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return broker.url(self.path)

    def start(self) -> RedisServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        broker.private_folder(self.path.parent)
        self._process = subprocess.Popen(
            [*broker.command(self.folder, self.path), *self.options],
            stdout=(self.folder / "redis.log").open("ab"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        broker.wait_until_up(self.path)
        return self

    def signal(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT: what a broker suffers in the field."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(timeout=10)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(timeout=10)
