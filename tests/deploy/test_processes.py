"""The deployment of docker-compose.yml, without containers: the same commands and variables, on a real PostgreSQL
and a real Redis with a password, from the first migration to a finished run."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.deploy.compose import ROOT, Deployment
from tests.environment import skip_for_want_of
from tests.postgres import Postgres

STEPS = 12
METRICS_TOKEN = "scraper"
COUNTED = 'django_http_requests_total_by_method_total{method="GET"} '


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], Any], within_s: float, deployment: Deployment) -> Any:
    deadline = time.monotonic() + within_s
    while not (result := found()):
        assert time.monotonic() < deadline, deployment.logs()
        time.sleep(0.1)
    return result


@pytest.fixture(scope="module")
def database_url(postgres_server: Postgres) -> str:
    """A database of its own, and a role that may do nothing else."""
    import psycopg

    name = f"deploy_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as line:
        line.execute(f"create role {name} login")
        line.execute(f"create database {name} owner {name}")
    return postgres_server.url(name).replace("attn@", f"{name}@")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deploy")
    if not shutil.which("redis-server"):
        skip_for_want_of("redis", "the compose file's command needs redis-server")
    broker, web = free_port(), free_port()
    subprocess.run([sys.executable, ROOT / "tools" / "make_secrets.py", folder / "secrets"], check=True)
    password = (folder / "secrets" / "redis_password").read_text().strip()
    (folder / "secrets" / "database_url").write_text(database_url)
    (folder / "secrets" / "redis_url").write_text(f"redis://:{password}@127.0.0.1:{broker}/0")
    (folder / "data").mkdir()
    instead = {
        "/run/secrets": str(folder / "secrets"),
        "0.0.0.0:8000": f"127.0.0.1:{web}",
        "--dir /data": f"--dir {folder / 'data'} --port {broker} --bind 127.0.0.1",
    }
    more = {
        "ATTN_DATA": str(folder / "data"),
        "ATTN_ARTIFACTS": str(folder / "artifacts"),
        "WEB": f"http://127.0.0.1:{web}",
        "ATTN_METRICS_TOKEN": METRICS_TOKEN,
    }
    running = Deployment(folder, instead, more)
    try:
        running.start("redis")
        assert running.start("migrate").wait(60) == 0, running.logs()
        for name in ("web", "reconciler"):
            running.start(name)
        running.start("worker-cpu", without_torch=False)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> Iterator[httpx.Client]:
    password = (deployment.folder / "secrets" / "admin_password").read_text().strip()
    with httpx.Client(base_url=deployment.more["WEB"], timeout=30) as line:
        until(lambda: answers(line, "/readyz"), 60, deployment)
        token = line.post("/api/v1/auth/login/", auth=("admin", password)).raise_for_status().json()["token"]
        line.headers["Authorization"] = f"Token {token}"
        yield line


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.xdist_group("deploy")
def test_a_run_submitted_over_rest_succeeds_on_the_deployed_processes(
    client: httpx.Client, deployment: Deployment
) -> None:
    body = {"name": "deployed", "spec": tiny_spec(client)}
    answer = client.post("/api/v1/experiments/", json=body)
    assert answer.status_code == 201, answer.text
    [run] = answer.json()["runs"]
    address = f"/api/v1/runs/{run['id']}/"
    until(lambda: client.get(address).json()["state"] in ("succeeded", "failed"), 90, deployment)
    assert client.get(address).json()["state"] == "succeeded", deployment.logs()
    loss = client.get("/api/v1/series/", params={"runs": run["id"], "names": "loss/total"}).json()["series"]
    assert loss[0]["points"]["step"] == list(range(STEPS))


def tiny_spec(client: httpx.Client) -> dict[str, Any]:
    spec: dict[str, Any] = client.get("/api/v1/presets/learn-qkv/").raise_for_status().json()["spec"]
    spec["train"] = {**spec["train"], "steps": STEPS}
    spec["optimizer"] = {**spec["optimizer"], "warmup_steps": 2}
    return spec


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.xdist_group("deploy")
def test_the_broker_refuses_who_does_not_know_the_password(client: httpx.Client, deployment: Deployment) -> None:
    import redis

    url = (deployment.folder / "secrets" / "redis_url").read_text()
    stranger = redis.Redis.from_url("redis://" + url.split("@")[1])
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_counters_of_several_web_processes_are_added_up(deployment: Deployment) -> None:
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}

    def count() -> float:
        page = httpx.get(f"{deployment.more['WEB']}/metrics", headers=headers, timeout=30)  # by whichever process
        (line,) = [line for line in page.text.splitlines() if line.startswith(COUNTED)]
        return float(line.removeprefix(COUNTED))

    page = httpx.get(f"{deployment.more['WEB']}/metrics", headers=headers, timeout=30).text
    names = ("process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total ")
    assert all(any(float(line.split()[1]) > 0 for line in page.splitlines() if line.startswith(name)) for name in names)
    assert 'django_migrations_unapplied_total{connection="default"} 0.0' in page
    first = count()
    assert [count() for _ in range(20)] == [first + number for number in range(1, 21)]
