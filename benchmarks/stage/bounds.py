"""The command line of a benchmark, and what a missed bound does: it is printed, and under `--strict` the benchmark
ends with 1 after all its figures."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

missed: list[str] = []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help="what to measure; everything where none is named")
    parser.add_argument("--strict", action="store_true", help="end with 1 if a bound was missed")
    seconds = float(os.environ.get("ATTN_BENCH_SECONDS", "60"))
    parser.add_argument("--seconds", type=float, default=seconds, help="how long a sustained part goes on")
    return parser.parse_args()


def asked(default: Sequence[str]) -> list[str]:
    """The parts that the command line names; all of `default` where it names none."""
    return _options().parts or list(default)


def seconds() -> float:
    """How long a sustained part goes on: --seconds, else ATTN_BENCH_SECONDS, else 60."""
    return float(_options().seconds)


def mark(what: str, kept: bool) -> str:
    """What to print behind a figure; a miss is remembered for `settle`."""
    if kept:
        return ""
    missed.append(what)
    return "  MISSED"


def tell(what: str, figure: float, bound: float, *, at_least: bool = False) -> float:
    """Print a figure beside its bound, and give it back, rounded for the file of results."""
    kept = figure >= bound if at_least else figure <= bound
    print(f"{what:60s} {figure:14,.4g} of {bound:,.4g}{mark(what, kept)}", flush=True)
    return round(figure, 5)


def settle() -> None:
    """Raises SystemExit with 1 if a bound was missed and `--strict` was given."""
    if missed and _options().strict:
        print(f"{len(missed)} bounds missed", file=sys.stderr)
        raise SystemExit(1)


def each(module: str, parts: Sequence[str]) -> None:
    """Run the parts in a process each, all of them. Raises SystemExit if one did not end well."""
    flags = ["--seconds", str(seconds()), *(["--strict"] if _options().strict else [])]
    ends = [subprocess.run([sys.executable, "-m", module, part, *flags], check=False).returncode for part in parts]
    if any(ends):
        raise SystemExit(1)
