"""A warm gunicorn, as the image starts it, and one reader on a kept connection."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import psutil

from .database import ROOT

GUNICORN = "--config python:attnservice.web_server attnservice.wsgi"


@dataclass
class Reader:
    """Asks REST over one connection. `processes` are the server's, so that their CPU time can be told."""

    port: int
    token: str
    processes: list[psutil.Process]

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def get(self, path: str, query: Mapping[str, Any], accept: str = "application/json") -> bytes:
        """The uncompressed body. Raises RuntimeError unless the answer is 200."""
        headers = {"Authorization": f"Token {self.token}", "Accept": accept}
        self._connection.request("GET", f"/api/v1/{path}?{urlencode(query)}", headers=headers)
        reply = self._connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {body[:300]!r}")
        return body

    def hang_up(self) -> None:
        """Before a pause that the server does not wait for; the next question connects again."""
        self._connection.close()

    def drain(self, path: str, query: Mapping[str, Any]) -> int:
        """Bytes of an answer that is not kept. Raises RuntimeError unless it is 200 and whole."""
        headers = {"Authorization": f"Token {self.token}"}
        self._connection.request("GET", f"/api/v1/{path}?{urlencode(query)}", headers=headers)
        reply = self._connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {reply.read(300)!r}")
        size = 0
        while piece := reply.read(2**18):
            size += len(piece)
        return size

    def json(self, path: str, query: Mapping[str, Any]) -> Any:
        return json.loads(self.get(path, query))

    def time(self, ask: Callable[[], bytes], repeats: int) -> dict[str, float]:
        """Median and shortest wall time, and the web processes' CPU time, in ms; the size of the answer in bytes."""
        for _ in range(3):
            body = ask()
        took, before = [], self.cpu()
        for _ in range(repeats):
            began = time.perf_counter()
            ask()
            took.append((time.perf_counter() - began) * 1000)
        cpu = (self.cpu() - before) * 1000 / repeats
        return {"ms": round(median(took), 2), "min": round(min(took), 2), "cpu": round(cpu, 2), "bytes": len(body)}

    def cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@contextmanager
def web(folder: Path) -> Iterator[Reader]:
    """Serve the database that Django is set up on."""
    port = _free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *GUNICORN.split()]
    with (folder / "web.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait(port, server, folder / "web.log")
        yield Reader(port, _token(), psutil.Process(server.pid).children())
    finally:
        server.terminate()
        server.wait(30)


def _token() -> str:
    from django.contrib.auth import get_user_model
    from knox.models import get_token_model

    user, _ = get_user_model().objects.get_or_create(username="bench", defaults={"is_superuser": True})
    return str(get_token_model().objects.create(user)[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the web server does not start: {log.read_text()[-800:]}")
