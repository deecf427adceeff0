"""Load: submits runs through the web server, whether it answers or not, and reads their rows."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

SPECS: list[dict[str, Any]] = [  # tiny, with every kind of output: series, evaluations, pictures, checkpoints
    {"task": "pointer", "data": {"dataset": "pointer", "val_size": 8, "test_size": 8}},
    {"task": "classify", "data": {"dataset": "digits"}, "model": {"patch": 4}},
    {"task": "pointer", "data": {"dataset": "pointer", "val_size": 8, "test_size": 8}, "seed": 7},
    {"task": "roles", "data": {"dataset": "roles", "val_size": 8, "test_size": 8}},
]
PATIENCE_S = 300.0


def spec(kind: int, steps: int) -> dict[str, Any]:
    """The kind-th spec, short and with a checkpoint every 20 steps."""
    chosen = SPECS[kind % len(SPECS)]
    tiny = {"d_model": 16, "heads": 2, "ffn": 16, "layers": 1}
    common = {
        "optimizer": {"warmup_steps": 2},
        "train": {"steps": steps, "batch_size": 8, "eval_every": 100, "checkpoint_every": 20, "predictions": 1},
        "record": {"probe_every": 100},
        "resources": {"threads": 1, "pool": "cpu"},
    }
    return {**common, **chosen, "model": {**tiny, **chosen.get("model", {})}}


class LoadGenerator:
    """Submits one run at a time under an idempotency key of its own, again and again until it is accepted."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.accepted: dict[int, int] = {}  # run → kind of spec
        self.refused: list[str] = []
        self.tries = 0
        self._number = count(1)

    def submit(self, kind: int, steps: int) -> int:
        """The accepted run's id. Raises TimeoutError if the service does not answer in time."""
        key, deadline = f"chaos-{next(self._number)}", time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.tries += 1
            run = self._submit(key, kind, steps)
            if run is not None:
                self.accepted[run] = kind
                return run
            time.sleep(0.3)
        raise TimeoutError(f"{key} was not accepted within {PATIENCE_S:.0f} s")

    def _submit(self, key: str, kind: int, steps: int) -> int | None:
        body = json.dumps({"project": "chaos", "name": key, "spec": spec(kind, steps)}).encode()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Token {self.token}",
            "Idempotency-Key": key,
        }
        request = urllib.request.Request(f"{self.url}/api/v1/experiments/", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(json.load(answer)["runs"][0]["id"])
        except urllib.error.HTTPError as error:
            if error.code < 500:
                self.refused.append(f"{key}: {error.code} {error.read()[:300]!r}")
                raise RuntimeError(self.refused[-1]) from None
            return None
        except (OSError, ValueError):  # the server was killed before or during its answer
            return None


class InBackground(threading.Thread):
    """Calls `work` until it returns True; the loop that kills must never wait for what it kills."""

    def __init__(self, work: Callable[[], bool], every_s: float) -> None:
        super().__init__(daemon=True)
        self.work, self.every_s = work, every_s
        self.error: BaseException | None = None
        self._halt = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self._halt.is_set() and not self.work():
                self._halt.wait(self.every_s)
        except BaseException as error:
            self.error = error

    def halt(self) -> None:
        self._halt.set()
        self.join(60)


def answered(query: Callable[[], Any]) -> Any:
    """The result of a query, or None while the database is down."""
    from django.db import Error, connection

    try:
        return query()
    except Error:
        connection.close()
        return None


def kinds(specs: int) -> Iterator[int]:
    return (number % specs for number in count())
