"""docker-compose.yml as plain processes: each service's own command and environment, with the containers' paths and
addresses replaced by those of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from attnservice.local.parent_death import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"


def services() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text())["services"])


def interpolate(text: str) -> str:
    """As Compose does: ${NAME:-default} of an empty environment, $$ for a dollar."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")


class Deployment:
    """`instead` maps what stands in the file to what stands here; `folder` takes the logs."""

    def __init__(self, folder: Path, instead: Mapping[str, str], more: Mapping[str, str]) -> None:
        self.folder, self.instead, self.more = folder, instead, more
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *, without_torch: bool = True) -> subprocess.Popen[bytes]:
        service = services()[name]
        environment = {key: self._here(str(value)) for key, value in (service.get("environment") or {}).items()}
        command = [self._here(part) for part in service["command"]]
        process = subprocess.Popen(
            [sys.executable if part == "python" else part for part in command],
            env={**bare(), **environment, **self.more, **(self._no_torch() if without_torch else {})},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self.log(name).open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.running[name] = process
        return process

    def _here(self, text: str) -> str:
        text = interpolate(text)
        for container, machine in self.instead.items():
            text = text.replace(container, machine)
        return text

    def _no_torch(self) -> dict[str, str]:
        """What the server's image has not got must not be asked for."""
        folder = self.folder / "without-torch"
        folder.mkdir(exist_ok=True)
        (folder / "torch.py").write_text("raise ImportError('the server image has no torch')\n")
        return {"PYTHONPATH": str(folder)}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in self.folder.glob("*.log")
        )

    def stop(self) -> None:
        """In the reverse order of their start, as Compose does; a worker gives its run back first."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def bare() -> dict[str, str]:
    """A container starts with next to nothing; above all with none of the test process's settings."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
