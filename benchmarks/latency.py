"""How long a person waits: submit → 201, and claimed → first step on a warm worker.

`python -m benchmarks.latency [runs]` starts its own Redis, web server and worker in a temporary folder, submits one
small run after the other over HTTP, and writes benchmarks/results/latency.json. A claimed run's first step counts as
done when the trainer has recorded it; the clocks are those of the database and of the trainer on one machine.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "latency.json"
BOUNDS_MS = {"submit → 201": 100.0, "claimed → first step": 500.0}
SPEC = {
    "task": "classify",
    "data": {"dataset": "digits"},
    "model": {"layers": 1, "d_model": 32, "ffn": 32, "patch": 4},
    "optimizer": {"warmup_steps": 1},
    "train": {"steps": 5, "batch_size": 8, "eval_every": 5, "checkpoint_every": 5, "predictions": 0},
    "record": {"probe_every": 5},
    "resources": {"threads": 1},
}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as folder:
        os.environ.update(_environment(Path(folder)))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            token, url = _start(Path(folder), processes)
            samples = [_sample(url, token, warm=index > 0) for index in range(runs + 1)][1:]  # the first warms up
        finally:
            _end(processes)
    _report(samples)


def _environment(folder: Path) -> dict[str, str]:
    from attnservice.local import broker

    return {
        "ATTN_DATA": str(folder),
        "ATTN_INSECURE_KEY": "1",
        "ATTN_BENCH_SOCKET": str(broker.socket_path(folder)),
        "DATABASE_URL": f"sqlite:///{folder / 'bench.sqlite3'}",
        "REDIS_URL": broker.url(broker.socket_path(folder)),
        "DJANGO_SETTINGS_MODULE": "attnservice.settings",
        "PYTHONPATH": str(ROOT),
    }


def _start(folder: Path, processes: list[subprocess.Popen[bytes]]) -> tuple[str, str]:
    """Everything a small installation has; returns a token and the address."""
    import django

    from attnservice.local import broker

    path = Path(os.environ["ATTN_BENCH_SOCKET"])
    for private in (folder / "redis", path.parent):
        broker.private_folder(private)
    processes.append(_child(folder, "redis", broker.command(folder / "redis", path)))
    broker.wait_until_up(path)
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from knox.models import get_token_model

    from experiments.models import Project

    call_command("migrate", verbosity=0)
    Project.objects.create(name="bench")
    user = get_user_model().objects.create_superuser("bench", password="bench bench bench")
    _, token = get_token_model().objects.create(user)
    port = _free_port()
    web = f"-m gunicorn --config python:attnservice.web_server --bind 127.0.0.1:{port} attnservice.wsgi"
    quiet = "--without-gossip --without-mingle --without-heartbeat"
    worker = f"-m celery -A attnservice.celery worker -Q cpu -c 1 -n bench@%h {quiet}"
    for name, options in (("web", web), ("worker", worker)):
        processes.append(_child(folder, name, [sys.executable, *options.split()]))
    url = f"http://127.0.0.1:{port}"
    _until(lambda: _answers(f"{url}/healthz"))
    return token, url


def _child(folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("wb")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _sample(url: str, token: str, *, warm: bool) -> dict[str, float]:
    """One run from its submission to its end, in milliseconds."""
    from experiments import store
    from experiments.models import Run

    if warm:
        _until(_a_trainer_waits)
    body = json.dumps({"project": "bench", "name": "latency", "spec": SPEC}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Token {token}"}
    request = urllib.request.Request(f"{url}/api/v1/experiments/", body, headers)
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
        run_id = json.load(answer)["runs"][0]["id"]
    submitted = 1000 * (time.perf_counter() - began)
    _until(lambda: Run.objects.get(pk=run_id).ended)
    run = Run.objects.get(pk=run_id)
    assert run.state == "succeeded", run.detail
    attempt = run.attempts.get()
    first = store.read([run_id], ["loss/total"], max_points=1000)[0].times[0]
    waited = attempt.info["ordered"] + float(first) - attempt.claimed.timestamp()
    queued = (attempt.claimed - run.created).total_seconds()
    return {"submit → 201": submitted, "submitted → claimed": 1000 * queued, "claimed → first step": 1000 * waited}


def _a_trainer_waits() -> bool:
    """Whether a spare trainer has finished its imports: it sleeps and has not worked for a moment."""
    import psutil

    spares = [each for each in psutil.process_iter(["cmdline"]) if "workers.trainer" in (each.info["cmdline"] or [])]
    if not spares:
        return False
    used = [sum(each.cpu_times()[:2]) for each in spares]
    time.sleep(1.0)
    return used == [sum(each.cpu_times()[:2]) for each in spares] and min(used) > 1


def _report(samples: list[dict[str, float]]) -> None:
    rows = {name: sorted(sample[name] for sample in samples) for name in samples[0]}
    figures = {
        name: {"median": _at(row, 0.5), "p95": _at(row, 0.95), "worst": _at(row, 1.0), "bound": BOUNDS_MS.get(name)}
        for name, row in rows.items()
    }
    print(f"{'ms':24}{'median':>9}{'p95':>9}{'worst':>9}{'bound':>9}")
    for name, figure in figures.items():
        print(f"{name:24}" + "".join(f"{'' if value is None else value:>9}" for value in figure.values()))
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "runs": len(samples),
        "milliseconds": figures,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n")


def _at(row: list[float], share: float) -> float:
    return round(row[min(int(share * len(row)), len(row) - 1)], 1)


def _until(condition: Callable[[], Any], within: float = 90.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the service does not get on"
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=2).status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
