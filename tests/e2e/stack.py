"""The whole service as `make run` starts it, on a folder and a port of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

from attnservice.local.parent_death import die_with_parent
from tests.deploy.compose import ROOT, bare

USER, PASSWORD = "admin", "a-password-for-the-browser"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Web server, Redis, worker and reconciler; it dies with the test process whatever happens."""

    def __init__(self, data: Path) -> None:
        self.data, self.port = data, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.terminal = data.parent / "terminal"
        options = ["run", "--data", str(data), "--port", str(self.port), "--demo", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attnservice.local", *options],
            cwd=ROOT,
            env=bare() | {"ATTN_ADMIN_USER": USER, "ATTN_ADMIN_PASSWORD": PASSWORD, "OMP_NUM_THREADS": "1"},
            stdout=self.terminal.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def up(self, within_s: float = 90) -> Stack:
        deadline = time.monotonic() + within_s
        while f"attnservice is on {self.url}" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return self

    def web(self) -> list[psutil.Process]:
        """The web server's processes, its master first."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in family if "gunicorn" in _command(process)]

    def back(self, killed: list[psutil.Process], within_s: float = 60) -> None:
        """Wait until other processes than the killed ones answer."""
        gone = {process.pid for process in killed}
        deadline = time.monotonic() + within_s
        while gone & {process.pid for process in self.web()} or not self._answers():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/healthz", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def said(self) -> str:
        logs = sorted((self.data / "logs").glob("*")) if (self.data / "logs").is_dir() else []
        tails = [f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs]
        return "\n".join([self.terminal.read_text(errors="replace"), *tails])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


class Rest:
    """A few calls of the REST API, to put something on the pages and to look behind them."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/api/v1"
        answer = self._send("POST", "/auth/login/", {"username": USER, "password": PASSWORD})
        self.token = str(answer["token"])

    def get(self, path: str) -> Any:
        return self._send("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", path, body)

    def wait_for(self, run: int, states: set[str], within_s: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (row := self.get(f"/runs/{run}/"))["state"] not in states:
            assert time.monotonic() < deadline, row
            time.sleep(0.3)
        return dict(row)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if token := getattr(self, "token", ""):
            headers["Authorization"] = f"Token {token}"
        request = Request(self.url + path, json.dumps(body).encode() if body else None, headers, method=method)
        try:
            with urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except URLError as error:
            words = error.read().decode() if hasattr(error, "read") else str(error)
            raise AssertionError(f"{method} {path}: {words}") from None
