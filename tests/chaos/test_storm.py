"""A small storm in every test run; `make chaos` has the large ones, on PostgreSQL too."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import OWN
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
SMALL = "--database sqlite --runs 4 --kills 40 --specs 2 --steps 160 --workers 2 --reconcilers 1 --pace 1.2 --no-spare"


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(240)
@pytest.mark.xdist_group("chaos")
def test_forty_random_kills_lose_nothing_double_nothing_and_change_no_bit(redis_server: RedisServer) -> None:
    out = OWN / "chaos.json"
    command = [sys.executable, "-m", "tests.chaos", *SMALL.split(), "--out", str(out)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True)
    print(done.stdout, resource.getrusage(resource.RUSAGE_CHILDREN))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.read_text())
    assert figures["kills"] >= 40
    assert figures["runs"] >= 4
    assert figures["violations"] == []
