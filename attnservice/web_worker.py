"""Gunicorn's worker for slow clients: waitress reads a request whole before a thread sees it, and sends the reply.

Half-sent headers, half-sent bodies and readers that stop cost a socket and no thread. `/healthz` has a thread of its
own, so it answers while all others wait for a database. Beyond MAX_WAITING requests a new one gets 503 at once.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from gunicorn.workers.base import Worker
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import Error

from attnservice.env import whole

MAX_WAITING = whole("ATTN_WAITING_REQUESTS", 512, least=1)  # per process
IDLE_S = 60  # a connection without a request, or without its rest, is closed
SOCKETS = 4096
OWN_THREAD = {"/healthz"}
POLL_S = 1.0  # how late a signal to stop may be seen; the parent expects a sign every 30 s
SPOOLED = 256 * 2**20  # bytes of replies to one slow reader that wait on disk before its thread waits


class Overloaded(Error):  # type: ignore[misc]
    """A request that found MAX_WAITING others."""

    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        status, headers, body = super().to_response(ident)
        return status, [*headers, ("Retry-After", "2")], body


class Dispatcher:
    """Hands requests to threads: those of OWN_THREAD and refusals to one, all others to the rest."""

    def __init__(self, threads: int) -> None:
        self.common, self.own = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self.common.set_thread_count(threads)
        self.own.set_thread_count(1)
        self.common.queue_logger.disabled = True  # it warns of every request that waits

    def add_task(self, channel: HTTPChannel) -> None:
        request = channel.requests[0]
        is_short = request.error or request.path in OWN_THREAD
        if not is_short and len(self.common.queue) >= MAX_WAITING:
            is_short = request.error = Overloaded("too many requests wait; try again")
        (self.own if is_short else self.common).add_task(channel)

    def shutdown(self) -> None:
        self.own.shutdown()
        self.common.shutdown(timeout=15)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. While a thread writes a reply it sends by itself what is large; waitress' loop would try the same
    all the time and find the lock taken: thirty times a request, at a third more processor time."""

    def writable(self) -> bool:
        is_being_written = self.requests and not self.will_close
        if is_being_written and self.total_outbufs_len <= self.adj.outbuf_high_watermark:
            return False
        return bool(super().writable())


class BufferedWorker(Worker):  # type: ignore[misc]
    """Gunicorn starts, watches and replaces the process; waitress serves in it."""

    def run(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        dispatcher = Dispatcher(self.cfg.threads)
        server: Any = create_server(
            self.wsgi,
            _dispatcher=dispatcher,
            sockets=[listener.sock for listener in self.sockets],
            asyncore_use_poll=True,
            backlog=2048,
            channel_timeout=IDLE_S,
            cleanup_interval=10,
            clear_untrusted_proxy_headers=False,  # Django decides which to believe
            connection_limit=min(SOCKETS, hard // 2),
            ident=None,
            outbuf_high_watermark=SPOOLED,
        )
        server.channel_class = Channel
        notified = 0.0
        while self.alive and os.getppid() == self.ppid:
            if time.monotonic() - notified > POLL_S:
                self.notify()
                notified = time.monotonic()
            server.asyncore.poll2(POLL_S, server._map)
        server.accepting = False
        dispatcher.shutdown()
        for _ in range(10):  # what threads wrote last
            server.asyncore.poll2(0.01, server._map)
