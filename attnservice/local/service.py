"""The launcher behind `make run`: Redis, web, worker, reconciler and inspection worker as children of one process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

from attnservice.local import broker, environment
from attnservice.local.child import Child
from attnservice.local.console import Tail, write_line
from attnservice.local.fingerprint import fingerprint

LOOK_EVERY_S = 0.2
STOP_ORDER = ("worker", "inspection", "reconciler", "web", "redis")


class Stop(Exception):
    """Ctrl-C or SIGTERM while the service was starting."""


class Service:
    def __init__(self, data: Path, port: int, *, demo: bool) -> None:
        self.data, self.port, self.demo, self.slots = data, port, demo, 1
        self.url = f"http://127.0.0.1:{port}"
        self.children: list[Child] = []  # in the order of their start
        self._asked = 0
        self._told: list[str] = []  # shown to the user whatever happens, a password above all

    def run(self) -> None:
        """Start, watch, and stop when asked. Everything that can be refused is refused first."""
        environment.enter(self.data)
        lock = environment.hold(self.data, self.url)
        refuse_busy(self.port)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._come_up()
            self._watch()
        except Stop:
            pass
        finally:
            self._tell()
            self._go_down()
            lock.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if self._asked > 1:
            write_line("\nKilled. Runs in progress resume from their last checkpoint at the next start.")
            os._exit(130)  # the kernel kills the children with this process: attnservice/local/parent_death.py

    # --- Coming up --------------------------------------------------------------------------------

    def _come_up(self) -> None:
        """If nothing has changed since the last start, the web server starts while the database is checked."""
        (self.data / "logs").mkdir(exist_ok=True)
        stamp, now, web = self.data / "prepared", fingerprint(), self._web()
        fresh = not stamp.exists() or stamp.read_text() != now
        if os.environ["REDIS_URL"] == broker.url(broker.socket_path(self.data)):
            self._start(self._redis())
        if not fresh:
            self._start(web)
        self._prepare(fresh)
        stamp.write_text(now)
        if fresh:
            self._start(web)
        self._wait_for_first_page(web)
        self._start(self._worker())
        self._start(self._reconciler())
        self._start(self._inspection())
        write_line(f"\n  attnservice is on {self.url}")
        self._tell()
        write_line("  Ctrl-C stops it and keeps all data.\n")

    def _tell(self) -> None:
        for line in self._told:
            write_line(f"  {line}")
        self._told.clear()

    def _start(self, child: Child) -> None:
        if self._asked:
            raise Stop
        child.start()
        self.children.append(child)

    def _prepare(self, fresh: bool) -> None:
        """Database, static files, and the first experiments of an empty database."""
        import django

        django.setup()
        from django.conf import settings
        from django.db import connections

        from attnservice.local import prepare

        if prepare.migrate():
            write_line("Database: tables are up to date")
        self._told += prepare.people()
        if fresh:
            prepare.collect_static(settings.STATIC_ROOT)
            write_line("Static files: collected")
        if self.demo and (names := prepare.submit_demos()):
            self._told.append(f"First experiments submitted: {', then '.join(names)}")
        connections.close_all()

    def _wait_for_first_page(self, web: Child, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not answers(f"{self.url}/healthz"):
            if self._asked:
                raise Stop
            if not web.alive() or time.monotonic() > deadline:
                sys.exit(f"The web server did not start. Its log: {web.log}\n{last_lines(web.log)}")
            time.sleep(0.05)

    # --- The children -----------------------------------------------------------------------------

    def _child(
        self, name: str, *command: str, ready: Callable[[], None] | None = None, patience_s: float = 15
    ) -> Child:
        return Child(name, command, self.data / "logs", ready=ready, patience_s=patience_s)

    def _redis(self) -> Child:
        folder, path = self.data / "redis", broker.socket_path(self.data)
        for private in (folder, path.parent):
            broker.private_folder(private)
        return self._child("redis", *broker.command(folder, path), ready=lambda: broker.wait_until_up(path))

    def _web(self) -> Child:
        options = f"--config python:attnservice.web_server --bind 127.0.0.1:{self.port} attnservice.wsgi"
        return self._child("web", sys.executable, "-m", "gunicorn", *options.split())

    def _worker(self) -> Child:
        """One slot, or more for small runs. It may take as long to stop as its trainer, and then requeues the run."""
        pools = "cpu,gpu" if has_gpu() else "cpu"
        options = f"-c {self.slots} -Q {pools} -n local@%h --loglevel INFO"
        options += " --without-gossip --without-mingle --without-heartbeat"
        command = [sys.executable, "-m", "celery", "-A", "attnservice.celery", "worker", *options.split()]
        return self._child("worker", *command, patience_s=60)

    def _inspection(self) -> Child:
        """The inspection worker, which answers questions to checkpoints; see attnservice.explorer."""
        options = "-P solo -Q explore -n explore@%h --loglevel INFO --without-gossip --without-mingle"
        app = ["-A", "attnservice.explorer", "worker", *options.split(), "--without-heartbeat"]
        return self._child("inspection", sys.executable, "-m", "celery", *app)

    def _reconciler(self) -> Child:
        return self._child("reconciler", sys.executable, str(environment.ROOT / "manage.py"), "reconciler")

    # --- Watching and going down ------------------------------------------------------------------

    def _watch(self) -> None:
        tails = [Tail(child.name, child.log) for child in self.children]
        while not self._asked:
            self._revive()
            for tail in tails:
                tail.show()
            time.sleep(LOOK_EVERY_S)

    def _revive(self) -> None:
        for child in self.children:
            if news := child.revive():
                write_line(news, child.name)

    def _go_down(self) -> None:
        """The worker first, while database and broker still run: it saves a checkpoint and requeues its run."""
        for child in sorted(self.children, key=lambda child: STOP_ORDER.index(child.name)):
            if not child.alive():
                continue
            began = time.monotonic()
            hint = " (it saves a checkpoint and requeues its run; Ctrl-C again kills)" if child.name == "worker" else ""
            write_line(f"Stopping {child.name}{hint}")
            child.ask_to_stop()
            if not child.wait():
                write_line(f"{child.name} did not stop within {child.patience_s:.0f} s and was killed")
            elif time.monotonic() - began > 1:
                write_line(f"{child.name} stopped after {time.monotonic() - began:.1f} s")
        if self.children:
            write_line("Stopped. `make run` continues from here.")


def refuse_busy(port: int, patience_s: float = 2.0) -> None:
    """Exit if the port is in use. A web server that was just killed may hold it for a moment."""
    deadline = time.monotonic() + patience_s
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return probe.bind(("127.0.0.1", port))
            except PermissionError:
                sys.exit(f"Port {port} is reserved for the administrator. Choose another: make run PORT=8000")
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"Port {port} is in use by another program. Choose another: make run PORT={port + 1}")
        time.sleep(0.1)


def has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
