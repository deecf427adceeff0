"""A real PostgreSQL server for tests: own folder, unix socket only, never as root, gone with us."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from attnservice.local.parent_death import die_with_parent


class Missing(Exception):
    """Why there is no PostgreSQL here."""


def _programs() -> Path:
    """The folder of initdb and postgres: Debian keeps them out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = installed[-1] if installed else shutil.which("initdb")
    if not found:
        raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
    return Path(found).resolve().parent


def _as_user() -> list[str]:
    """PostgreSQL refuses root: run it as nobody then."""
    if os.getuid():
        return []
    if not shutil.which("setpriv"):
        raise Missing("we are root and setpriv (util-linux) is missing: PostgreSQL refuses to run as root")
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"]


class Postgres:
    """`durable=False` turns fsync off: right for tests, except for those that kill the server."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder, self.durable = folder, durable
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Postgres:
        programs, user = _programs(), _as_user()
        if not (self.folder / "data").exists():
            self._initdb(programs, user)
        self._process = subprocess.Popen(
            [*user, str(programs / "postgres"), "-D", str(self.folder / "data"), *self._options()],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._wait()
        return self

    def _initdb(self, programs: Path, user: list[str]) -> None:
        self.folder.mkdir(mode=0o700)
        if user:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        options = ["-U", "attn", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        initdb = [*user, str(programs / "initdb"), "-D", "data", *options]
        subprocess.run(initdb, cwd=self.folder, check=True, capture_output=True)

    def _options(self) -> list[str]:
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "60"}
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

    def url(self, database: str = "postgres") -> str:
        return f"postgres://attn@{quote(str(self.folder), safe='')}/{database}"

    def _wait(self, within_s: float = 30.0) -> None:
        import psycopg

        deadline = time.monotonic() + within_s
        while True:
            try:
                return psycopg.connect(host=str(self.folder), user="attn", dbname="postgres").close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                    raise Missing(f"it does not start: {error}; {self._last_lines()}") from None
                time.sleep(0.05)

    def _last_lines(self) -> str:
        return " | ".join((self.folder / "log").read_text(errors="replace").splitlines()[-3:])

    def kill(self) -> None:
        """As a crash looks; `start` brings the same data back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)  # fast shutdown: does not wait for clients to leave

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process:
            process.send_signal(how)
            process.wait(timeout=30)
