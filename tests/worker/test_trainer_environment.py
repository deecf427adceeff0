"""No secret of the service reaches a trainer, whose code may be an operator's package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import attnservice
from workers.supervisor.process.trainer_process import environment

SECRET = re.compile(r"URL|SECRET|KEY|PASSWORD|TOKEN|DATABASE|REDIS|S3")


def test_what_settings_read_and_may_be_secret_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(attnservice.__file__).parent
    source = "".join(file.read_text() for file in folder.rglob("*.py"))
    secret = {name for name in re.findall(r'"((?:ATTN|DATABASE|REDIS)_[A-Z0-9_]+)"', source) if SECRET.search(name)}
    assert {"DATABASE_URL", "DATABASE_REPLICA_URL", "REDIS_URL", "ATTN_SECRET_KEY", "ATTN_METRICS_TOKEN"} <= secret
    for name in secret:
        monkeypatch.setenv(name, "a secret")
    assert not secret & environment(3, None).keys()
