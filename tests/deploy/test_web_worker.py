"""The web server under clients that are slow, many or stuck: real sockets, real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.deploy import waiting_app

ROOT = Path(__file__).parents[2]
THREADS = 2
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"


class Server:
    def __init__(self, folder: Path, waiting: int) -> None:
        self.go = folder / "go"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        options = f"--config python:attnservice.web_server --bind 127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gunicorn", *options.split()]
        settings = {"ATTN_WEB_PROCESSES": "1", "ATTN_WEB_THREADS": str(THREADS), "ATTN_WAITING_REQUESTS": str(waiting)}
        environment = {**os.environ, **settings, "GO": str(self.go)}
        self.process = subprocess.Popen([*command, waiting_app.__name__], cwd=ROOT, env=environment)
        while True:
            try:
                self.get("/").close()
                break
            except ConnectionRefusedError:
                assert self.process.poll() is None

    def get(self, path: str) -> HTTPConnection:
        """A request whose answer is not read yet."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        return connection

    def answer(self, path: str) -> bytes:
        reply = self.get(path).getresponse()
        assert reply.status == 200
        return reply.read()

    def sent(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    started = Server(tmp_path, getattr(request, "param", 512))
    yield started
    started.go.touch()
    started.process.terminate()
    assert started.process.wait(30) == 0


@pytest.mark.parametrize("half", [HEAD, BODY], ids=["headers", "bodies"])
def test_half_sent_requests_hold_no_thread(server: Server, half: bytes) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.sent(half)) for _ in range(100)]
        assert server.answer("/") == server.answer("/healthz") == b"ok"
        clients[0].sendall(b"\r\n" if half == HEAD else b"67890")  # the rest comes, and is answered
        assert clients[0].recv(2**16).startswith(b"HTTP/1.1 200 OK")


def test_health_answers_while_every_thread_waits(server: Server) -> None:
    waiting = [server.get("/wait") for _ in range(10 * THREADS)]
    assert server.answer("/healthz") == b"ok"
    server.go.touch()
    assert [connection.getresponse().read() for connection in waiting] == [b"waited"] * len(waiting)


@pytest.mark.parametrize("server", [3], indirect=True)
def test_a_request_too_many_is_refused_at_once_and_told_when_to_come_again(server: Server) -> None:
    waiting = [server.get("/wait") for _ in range(THREADS)]
    while len(list(server.go.parent.glob("waiting-*"))) < THREADS:  # each has its thread
        time.sleep(0.01)
    waiting += [server.get("/wait") for _ in range(3)]
    assert server.answer("/healthz") == b"ok"  # those before it are in the queue by now
    reply = server.get("/").getresponse()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
    server.go.touch()
    assert {connection.getresponse().status for connection in waiting} == {200}


def test_readers_that_stop_hold_no_thread(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(3 * THREADS):
            stack.enter_context(server.sent(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert server.answer("/") == b"ok"
        assert len(server.answer("/large")) == 40 * 2**20


def test_what_is_under_way_is_finished_before_the_server_ends(server: Server) -> None:
    waiting = server.get("/wait")
    assert server.answer("/healthz") == b"ok"
    server.process.terminate()
    server.go.touch()
    assert waiting.getresponse().read() == b"waited"
