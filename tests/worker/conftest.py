"""One scripted worker and one reconciler for all tests here, and what every test asks about a run."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.worker import processes

_TOGETHER = {  # modules whose tests share processes, and so a process of xdist
    "test_protocol": "worker",
    "test_survival": "worker",
    "test_buckets": "worker",
    "test_limits": "worker",
    "test_endings": "worker",
    "test_floods": "worker",
    "test_doorbells": "worker",
    "test_flush": "worker",
    "test_training": "training",
    "test_outage": "training",
    "test_host_death": "training",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem in _TOGETHER:
            item.add_marker(pytest.mark.xdist_group(_TOGETHER[item.path.stem]))


@pytest.fixture(scope="session")
def reconciler(django_db_setup: None, redis_server: RedisServer) -> Iterator[processes.Process]:
    process = processes.start_reconciler()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def shared_worker(
    django_db_setup: None, redis_server: RedisServer, reconciler: processes.Process
) -> Iterator[processes.Worker]:
    worker = processes.Worker("cpu", script={}).ready()
    yield worker
    worker.stop()


@pytest.fixture
def worker(shared_worker: processes.Worker, transactional_db: None, redis: RedisServer) -> processes.Worker:
    """The shared scripted worker, told nothing."""
    shared_worker.play({})
    return shared_worker


@pytest.fixture(scope="session")
def shared_laboratory(
    django_db_setup: None, redis_server: RedisServer, reconciler: processes.Process
) -> Iterator[list[processes.Worker]]:
    workers = [processes.Worker("lab", ATTN_SPARE="0") for _ in range(3)]  # importing torch costs these tests most
    yield [worker.ready() for worker in workers]
    for worker in workers:
        worker.stop(signal.SIGKILL)


@pytest.fixture
def laboratory(
    shared_laboratory: list[processes.Worker], transactional_db: None, redis: RedisServer
) -> list[processes.Worker]:
    """Three workers with the real trainer on the pool `lab`; at least one of them lives."""
    return shared_laboratory


@pytest.fixture
def hire(transactional_db: None, redis: RedisServer, reconciler: processes.Process) -> Iterator[type[processes.Worker]]:
    """Start a worker of one's own: `hire("pool", script={...})`; it is killed at the end of the test."""
    hired: list[processes.Worker] = []

    def start(pool: str, **options: object) -> processes.Worker:
        hired.append(processes.Worker(pool, **options))  # type: ignore[arg-type]
        return hired[-1]

    yield start  # type: ignore[misc]
    for worker in hired:
        worker.stop(signal.SIGKILL)
        logging.getLogger(__name__).info("%s\n%s", worker.name, worker.log())
