"""The training loop against a bare hand-written one of the same model, data and optimizer: steps a second.

    python -m benchmarks.loop [--device cuda] [--steps 80]

Ours is `train` with everything recorded at every step; the bare loop records nothing. They alternate step by step: of
blocks of steps one after another the ratio came to 0.94, 0.99 and 1.02 on the same machine in an hour. Writes
benchmarks/results/loop-<device>.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before torch loads

import torch

from benchmarks.encoder import encoder_spec, machine, nobody, wait
from workers.trainer.recording.recorder import Recorder
from workers.trainer.tasks.registry import build_task
from workers.trainer.training.loop import train

RESULTS = Path(__file__).parent / "results"
TARGET = 0.98
WARM = 5


def measure(device: str, steps: int) -> list[tuple[float, float]]:
    """Seconds of a step of ours and of the bare loop's step after it, alternating, so that whatever the machine does
    falls on both. The first steps warm up, and the last one saves."""
    clock, other = _clock(device), bare(device)
    samples: list[tuple[float, float]] = []
    marks = [clock()]

    def ended() -> None:
        wait(device)
        mine = clock() - marks[0]
        began = clock()
        next(other)
        samples.append((mine, clock() - began))
        marks[0] = clock()

    began = time.monotonic()
    recorder = Recorder(nobody, lambda: time.monotonic() - began)
    with tempfile.TemporaryDirectory() as scratch:
        train(encoder_spec(device, steps), recorder, ended, scratch=Path(scratch))
    return samples[WARM:-1]


def bare(device: str) -> Iterator[None]:
    """The same written out with nothing of ours but model and data: a step at a time."""
    task = build_task(encoder_spec(device, 1000), torch.device(device))
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4, weight_decay=0, fused=True)
    for step in itertools.count():
        loss = task.losses(step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait(device)
        yield


def main() -> None:
    options = _options()
    pairs = measure(options.device, options.steps + WARM + 1)
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    quarter = len(ratios) // 4
    report: dict[str, Any] = {
        "machine": machine(options.device),
        "steps_per_second": {
            "ours": round(1 / statistics.median(mine for mine, _ in pairs), 4),
            "bare": round(1 / statistics.median(theirs for _, theirs in pairs), 4),
        },
        "of": "CPU time of the process" if options.device == "cpu" else "wall time",
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(ratios[quarter], 4), round(ratios[-quarter - 1], 4)],
        "pairs": len(pairs),
        "target": TARGET,
    }
    path = RESULTS / f"loop-{options.device}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _clock(device: str) -> Any:
    return time.process_time if device == "cpu" else time.perf_counter


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=80)
    return parser.parse_args()


if __name__ == "__main__":
    main()
