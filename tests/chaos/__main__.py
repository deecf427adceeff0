"""`python -m tests.chaos`: kills processes at random, then checks every run. Exit status 1 on any violation."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.chaos.storm import StormOptions, storm


def main() -> int:
    options = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="attn-chaos-"))
    storm_options = StormOptions(
        runs=options.runs,
        kills=options.kills,
        seed=options.seed,
        specs=options.specs,
        steps=options.steps,
        workers=options.workers,
        pace_s=options.pace,
        reconcilers=options.reconcilers,
    )
    figures = storm(storm_options, folder, postgres=options.database == "postgres", ATTN_SPARE=str(int(options.spare)))
    _print(figures)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    if figures["violations"]:
        print(f"data and logs are kept in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--runs", type=int, default=40, help="submit at least so many")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--specs", type=int, default=4, help="kinds of runs, each with an undisturbed reference")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--reconcilers", type=int, default=2)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds between faults, on average")
    parser.add_argument("--spare", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


def _print(figures: dict[str, Any]) -> None:
    for name, figure in figures.items():
        if name != "violations":
            print(f"  {name:36} {figure}")
    for words in figures["violations"]:
        print(f"  VIOLATION {words}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
