"""A cluster of real processes: database, Redis, web, reconcilers, workers. A process that dies is restarted, as a
process manager would do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from attnservice.local import broker
from attnservice.local.parent_death import die_with_parent
from tests.postgres import Missing, Postgres
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 4
SHORT = {
    "ATTN_LEASE_S": str(LEASE_S),
    "ATTN_BEAT_S": "1",
    "ATTN_RECONCILE_S": "1",
    "ATTN_BACKOFF_S": "0",
    "ATTN_CRASH_LIMIT": "100000",  # crashes here are never the run's fault
    "ATTN_STOP_GRACE_S": "5",
    "OMP_NUM_THREADS": "1",
}


class ManagedProcess:
    """One process and its descendants; `revive` restarts it if it died."""

    def __init__(self, name: str, command: list[str], logs: Path) -> None:
        self.name, self.command, self.log = name, command, logs / f"{name}.log"
        self.closed = False  # its machine is gone: it is not restarted
        self.start()

    def start(self) -> None:
        self.popen = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def revive(self) -> None:
        if not self.closed and self.popen.poll() is not None:
            self.start()

    def family(self) -> list[psutil.Process]:
        """The process itself, then every living descendant; empty when it is dead."""
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.popen.pid)
            return [each for each in (own, *own.children(recursive=True)) if living(each)]
        return []

    def stop(self) -> None:
        self.closed = True
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()


class Cluster:
    """A whole installation in one folder. Sets os.environ to that of the installation."""

    def __init__(self, folder: Path, *, postgres: bool, script: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.chmod(0o711)  # PostgreSQL runs as another user below
        (folder / "logs").mkdir()
        self.postgres = Postgres(folder / "pg", durable=True).start() if postgres else None
        self.redis = RedisServer(folder / "redis").start()
        data = folder / "data"
        (data / "static").mkdir(parents=True)
        database = self.postgres.url("chaos") if self.postgres else f"sqlite:///{data / 'chaos.sqlite3'}"
        os.environ.update({**SHORT, **(script or {})})
        os.environ.update(
            ATTN_DATA=str(data),
            ATTN_INSECURE_KEY="1",
            DATABASE_URL=database,
            REDIS_URL=broker.url(self.redis.path),
            DJANGO_SETTINGS_MODULE="attnservice.settings",
            PYTHONPATH=str(ROOT),
        )
        self.processes: list[ManagedProcess] = []
        self.workers: list[ManagedProcess] = []

    def prepare(self) -> str:
        """An empty database with one user. Returns the user's token."""
        if self.postgres:
            import psycopg

            with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
                connection.execute("create database chaos")
        import django

        django.setup()
        from django.contrib.auth import get_user_model
        from django.core.management import call_command
        from knox.models import get_token_model

        from experiments.models import Project

        call_command("migrate", verbosity=0)
        Project.objects.create(name="chaos")
        _, token = get_token_model().objects.create(get_user_model().objects.create_superuser("chaos"))
        return str(token)

    def open(self, *, workers: int, reconcilers: int = 1, web: bool = True) -> None:
        if web:
            options = f"--config python:attnservice.web_server --bind 127.0.0.1:{self.port} --graceful-timeout 1"
            self.processes.append(self._python("web", f"-m gunicorn {options} attnservice.wsgi"))
        for number in range(reconcilers):
            self.processes.append(self._python(f"reconciler{number}", "-m django reconciler"))
        for number in range(workers):
            self.add_worker(f"worker{number}")

    def add_worker(self, name: str) -> ManagedProcess:
        quiet = "--without-gossip --without-mingle --without-heartbeat"
        command = f"-m celery -A attnservice.celery worker -Q cpu -c 1 -n {name}@chaos -l INFO {quiet}"
        worker = self._python(name, command)
        self.processes.append(worker)
        self.workers.append(worker)
        return worker

    def _python(self, name: str, options: str) -> ManagedProcess:
        return ManagedProcess(name, [sys.executable, *options.split()], self.folder / "logs")

    def revive(self) -> None:
        for process in self.processes:
            process.revive()

    def named(self, *beginnings: str) -> list[ManagedProcess]:
        return [each for each in self.processes if each.name.startswith(beginnings) and not each.closed]

    def trainers(self) -> list[psutil.Process]:
        """Every trainer of this installation, whatever its parent is now."""
        mark = os.environ["ATTN_DATA"]
        return [each for each in psutil.process_iter() if is_trainer(each) and _environment(each) == mark]

    def restart_database(self) -> None:
        """Start again, once the children of the killed postmaster are gone."""
        assert self.postgres is not None
        deadline = time.monotonic() + 60
        while True:
            try:
                self.postgres.start()
                return
            except Missing:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.redis.stop()
        if self.postgres:
            self.postgres.stop()


def living(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def is_trainer(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return os.environ.get("ATTN_TRAINER", "workers.trainer") in process.cmdline() and living(process)
    return False


def _environment(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.environ().get("ATTN_DATA", ""))
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
