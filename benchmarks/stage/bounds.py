"""What a missed bound does: it is printed, and under `--strict` the benchmark ends with 1 after all its figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

STRICT = "--strict"
_missed: list[str] = []


def asked(default: Sequence[str]) -> list[str]:
    """The parts that the command line names, without its flag; all of `default` where it names none."""
    return [word for word in sys.argv[1:] if word != STRICT] or list(default)


def mark(what: str, kept: bool) -> str:
    """What to print behind a figure; a miss is remembered for `settle`."""
    if kept:
        return ""
    _missed.append(what)
    return "  MISSED"


def settle() -> None:
    """Raises SystemExit with 1 if a bound was missed and `--strict` was given."""
    if _missed and STRICT in sys.argv[1:]:
        print(f"{len(_missed)} bounds missed", file=sys.stderr)
        raise SystemExit(1)


def each(module: str, parts: Sequence[str]) -> None:
    """Run the parts in a process each, all of them. Raises SystemExit if one did not end well."""
    flags = [word for word in sys.argv[1:] if word == STRICT]
    ends = [subprocess.run([sys.executable, "-m", module, part, *flags], check=False).returncode for part in parts]
    if any(ends):
        raise SystemExit(1)
