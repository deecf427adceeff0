"""What `make run` starts: it comes up, mends itself, stops cleanly, goes on, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from attnservice.local.parent_death import die_with_parent
from tests.deploy.compose import ROOT, bare
from tests.deploy.test_processes import free_port

pytestmark = [pytest.mark.redis, pytest.mark.xdist_group("launcher")]


class Launcher:
    """`python -m attnservice.local run` as `make run` starts it, in a process group like a terminal's."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.port, self.url = data, port, f"http://127.0.0.1:{port}"
        self.cost = 0.0
        self.terminal = data.parent / f"terminal-{time.monotonic_ns()}"
        options = ["run", "--data", str(data), "--port", str(port), "--demo", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attnservice.local", *options],
            cwd=ROOT,
            env=bare(),
            stdout=self.terminal.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def said(self) -> str:
        return self.terminal.read_text()

    def up(self, within_s: float = 90) -> None:
        """Until the first page is there; `cost` is the processor time that it took, in seconds."""
        deadline = time.monotonic() + within_s
        while not self.answers():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.03)
        times = [process.cpu_times() for process in (psutil.Process(self.process.pid), *self.family())]
        self.cost = sum(spent.user + spent.system for spent in times)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/login/", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def settle(self) -> None:
        """Until it has told its address: then everything has been started."""
        self.wait_for(f"attnservice is on {self.url}")

    def wait_for(self, words: str, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while words not in self.said():
            assert time.monotonic() < deadline, f"never said {words!r}:\n{self.said()}"
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)  # as Ctrl-C does: the whole foreground group
        return self.process.wait(60)


@dataclass
class FirstStart:
    """What a start on an empty folder said and left, from its first page to Ctrl-C."""

    data: Path
    said: str
    login: int
    family: list[psutil.Process]
    status: int


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    launcher = Launcher(tmp_path_factory.mktemp("launcher") / "data", free_port())
    launcher.up()
    launcher.settle()
    family = launcher.family()
    login = httpx.post(f"{launcher.url}/api/v1/auth/login/", auth=("admin", password(launcher.said()))).status_code
    status = launcher.interrupt()
    return FirstStart(launcher.data, launcher.said(), login, family, status)


def password(said: str) -> str:
    found = re.search(r"with the password  (\S+)", said)
    assert found, said
    return found[1]


@pytest.fixture(scope="module")
def running(first: FirstStart) -> Iterator[Launcher]:
    """A later start on the same folder, for every test that leaves it in good health."""
    yield from started(first.data)


@pytest.fixture
def doomed(first: FirstStart, tmp_path: Path) -> Iterator[Launcher]:
    """One for a test that ends it, on a copy of the folder."""
    shutil.copytree(first.data, tmp_path / "data", ignore=shutil.ignore_patterns("*.sock"))
    yield from started(tmp_path / "data")


def started(data: Path) -> Iterator[Launcher]:
    launcher = Launcher(data, free_port())
    launcher.up()
    launcher.settle()
    yield launcher
    if launcher.process.poll() is None:
        launcher.process.kill()
        launcher.process.wait()


def gone(processes: list[psutil.Process], within_s: float = 20) -> bool:
    return not psutil.wait_procs(processes, timeout=within_s)[1]


def test_a_first_start_tells_a_password_that_works_and_keeps_it_nowhere(first: FirstStart) -> None:
    assert first.login == 200
    logs = "".join(path.read_text(errors="replace") for path in (first.data / "logs").iterdir())
    assert password(first.said) not in logs
    assert (first.data / "secret-key").stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_everything_in_order_and_says_so(first: FirstStart) -> None:
    assert first.status == 0
    assert re.findall(r"Stopping (\w+)", first.said) == ["worker", "inspection", "reconciler", "web", "redis"]
    assert len(first.family) >= 6  # redis, gunicorn and its worker, worker, reconciler, inspection worker; and slots
    assert gone(first.family)


def test_a_later_start_does_nothing_twice(running: Launcher, first: FirstStart) -> None:
    """Five seconds on an idle machine are the promise; what it computes until then is the same on a busy one."""
    assert running.cost < 5
    for done in ("password", "Database", "Static files"):
        assert (done in first.said, done in running.said()) == (True, False)


def test_a_second_start_on_the_same_data_says_that_one_is_running(running: Launcher) -> None:
    second = Launcher(running.data, free_port())
    assert second.process.wait(30) == 1
    assert f"already running on {running.data}: {running.url}" in second.said()


def test_a_busy_port_is_named_with_a_way_out(running: Launcher, tmp_path: Path) -> None:
    second = Launcher(tmp_path / "data", running.port)
    assert second.process.wait(30) == 1
    assert f"Port {running.port} is in use" in second.said()
    assert f"make run PORT={running.port + 1}" in second.said()


def test_a_killed_child_is_started_again(running: Launcher) -> None:
    redis = next(child for child in running.family() if "unixsocket" in " ".join(child.cmdline()))
    redis.kill()
    running.wait_for("was killed by SIGKILL")
    running.wait_for("restarted")
    assert httpx.get(f"{running.url}/readyz", timeout=10).json()["broker"] == "ok"


def test_nothing_survives_a_killed_launcher(doomed: Launcher) -> None:
    deadline = time.monotonic() + 60
    while not any("workers.trainer" in " ".join(process.cmdline()) for process in doomed.family()):
        assert time.monotonic() < deadline, "no trainer waits in the slot"
        time.sleep(0.2)
    family = doomed.family()
    doomed.process.kill()
    doomed.process.wait()
    assert gone(family, 10)


def test_a_second_ctrl_c_does_not_wait(doomed: Launcher) -> None:
    family = doomed.family()
    worker = next(child for child in family if "celery" in " ".join(child.cmdline()))
    worker.suspend()  # it will not hear the first one
    os.killpg(doomed.process.pid, signal.SIGINT)
    doomed.wait_for("Stopping worker")
    os.killpg(doomed.process.pid, signal.SIGINT)
    assert doomed.process.wait(10) == 130
    assert gone(family)
