"""The training loop against a bare hand-written one of the same model, data and optimizer: steps a second.

    python -m benchmarks.loop [--device cuda] [--trials 5] [--steps 12]

Ours is `train` with everything recorded at every step; the bare loop records nothing. Blocks alternate. Writes
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
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before torch loads

import torch

from benchmarks.encoder import encoder_spec, machine, nobody, wait
from workers.trainer.loop import train
from workers.trainer.recorder import Recorder
from workers.trainer.tasks import build_task

RESULTS = Path(__file__).parent / "results"
TARGET = 0.98


def ours(device: str, steps: int) -> list[float]:
    """Seconds between the ends of steps, the first and the last left out: they probe and save."""
    clock, ends = _clock(device), []

    def ended() -> None:
        wait(device)
        ends.append(clock())

    began = time.monotonic()
    recorder = Recorder(nobody, lambda: time.monotonic() - began)
    with tempfile.TemporaryDirectory() as scratch:
        train(encoder_spec(device, steps), recorder, ended, scratch=Path(scratch))
    return _between(ends)[:-1]


def bare(device: str, steps: int) -> list[float]:
    """The same written out with nothing of ours but model and data."""
    clock, ends = _clock(device), []
    task = build_task(encoder_spec(device, steps), torch.device(device))
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4, weight_decay=0, fused=True)
    for step in range(steps):
        loss = task.losses(step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait(device)
        ends.append(clock())
    return _between(ends)[:-1]


def main() -> None:
    options = _options()
    rates: list[tuple[float, float]] = []
    for trial in range(options.trials + 1):
        found = [1 / statistics.median(way(options.device, options.steps)) for way in (ours, bare)]
        if trial:  # the first warms up
            rates.append((found[0], found[1]))
    ratios = [one / other for one, other in rates]
    report: dict[str, Any] = {
        "machine": machine(options.device),
        "steps_per_second": {
            "ours": round(statistics.median(rate[0] for rate in rates), 4),
            "bare": round(statistics.median(rate[1] for rate in rates), 4),
        },
        "of": "CPU time of the process" if options.device == "cpu" else "wall time",
        "ratio": round(statistics.median(ratios), 4),
        "trials": [round(ratio, 4) for ratio in ratios],
        "target": TARGET,
    }
    path = RESULTS / f"loop-{options.device}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _clock(device: str) -> Any:
    return time.process_time if device == "cpu" else time.perf_counter


def _between(ends: list[float]) -> list[float]:
    return [later - sooner for sooner, later in itertools.pairwise(ends)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    main()
