"""`python -m tests.lab.models`: judge every architecture, print the table and write it to docs/any-model.md. Exit
status 1 where attention is silent or wrong. `--log` keeps the verdicts, and takes up those of an interrupted run."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from tests.lab.models import table
from tests.lab.models.listing import Architecture, architectures
from tests.lab.models.pool import verdicts, warm


def main() -> int:
    asked = _arguments()
    warm()
    those = [each for each in architectures() if not asked.only or each.name in asked.only]
    known = _kept(asked.log)
    found = {each: known[each] for each in those if each in known}
    left = [each for each in those if each not in known]
    random.Random(0).shuffle(left)  # so that what an interrupted run has judged is a sample
    for verdict in verdicts(left, asked.jobs):
        found[Architecture(verdict["library"], verdict["name"])] = verdict
        print(f"{len(found)}/{len(those)} {table.line(verdict)}", flush=True)
        if asked.log:
            with asked.log.open("a") as log:
                log.write(json.dumps(verdict) + "\n")
    ordered = [found[each] for each in those if each in found]
    if not asked.only:
        table.write(table.written(ordered))
    print(table.written(ordered))
    amiss = table.amiss(ordered)
    print("\n".join(amiss) or "nothing is silent or wrong")
    return 1 if amiss else 0


def _kept(log: Path | None) -> dict[Architecture, dict[str, Any]]:
    if log is None or not log.exists():
        return {}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {Architecture(each["library"], each["name"]): each for each in lines}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="names of architectures; the docs are left alone")
    parser.add_argument("--log", type=Path, help="a file of verdicts, a line of JSON each")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
