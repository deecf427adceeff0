"""The environment of all processes of a local service: data folder, secret key, broker."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import IO

from attnservice.local import broker

ROOT = Path(__file__).resolve().parents[2]


class AlreadyRunning(RuntimeError):
    """Another launcher holds this data folder."""


def enter(data: Path) -> None:
    """Point this process and its children at `data`. Variables that the user set, such as DATABASE_URL, are kept."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data / "datasets").mkdir(exist_ok=True)  # where users put the files that specs name, see ATTN_DATA_ROOT
    (data / "models").mkdir(exist_ok=True)  # and weights, see ATTN_MODELS_ROOT
    keep_secret_key(data / "secret-key")
    os.environ["ATTN_DATA"] = str(data)
    os.environ.setdefault("REDIS_URL", broker.url(broker.socket_path(data)))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "attnservice.settings")
    os.environ["PYTHONUNBUFFERED"] = "1"


def keep_secret_key(path: Path) -> None:
    """Store the secret key, readable by this user alone, so that sessions survive a restart."""
    if path.exists():
        return
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(50))


def hold(data: Path, url: str) -> IO[str]:
    """Lock `data` for this launcher until the returned file is closed or the process ends."""
    file = (data / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise AlreadyRunning(file.read().strip()) from None
    file.truncate(0)
    file.write(f"{url} (process {os.getpid()})\n")
    file.flush()
    return file
