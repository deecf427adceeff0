"""One file of results a day and machine: benchmarks/results/<date>-<machine>.json, a section a benchmark."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results"


def machine() -> str:
    """A name that tells what matters and nothing about whose it is; ATTN_BENCH_HOST overrides it."""
    return os.environ.get("ATTN_BENCH_HOST") or f"{os.cpu_count()}-core-{platform.machine()}"


def path() -> Path:
    return FOLDER / f"{datetime.now(UTC).date().isoformat()}-{machine()}.json"


def keep(name: str, section: dict[str, Any]) -> None:
    """Put a benchmark's figures into today's file, over those of an earlier call of the same benchmark."""
    FOLDER.mkdir(exist_ok=True)
    facts = json.loads(path().read_text()) if path().exists() else {}
    facts |= {"machine": machine(), "python": platform.python_version(), "cores": os.cpu_count()}
    facts.setdefault("benchmarks", {})[name] = section
    path().write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def stored(name: str) -> dict[str, Any] | None:
    """Today's figures of a benchmark, where there are any."""
    if not path().exists():
        return None
    section: dict[str, Any] | None = json.loads(path().read_text())["benchmarks"].get(name)
    return section
