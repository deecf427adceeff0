"""A WSGI application for tests of the server: one path answers, one waits for a file, one is large."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    match environ["PATH_INFO"]:
        case "/wait":
            go = Path(os.environ["GO"])
            go.with_name(f"waiting-{uuid.uuid4()}").touch()
            while not go.exists():
                time.sleep(0.01)
            return [b"waited"]
        case "/large":
            return (b"x" * 2**20 for _ in range(40))
        case "/echo":
            return [body]
    return [b"ok"]
