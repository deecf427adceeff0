"""sam3-lite on scenes: three seeds of the preset, through the trainer's own loop.

    python -m benchmarks.sam3_lite [--seeds 0 1 2] [--steps 1000]

Writes benchmarks/results/sam3-lite-scenes-<date>.json with each seed's figures beside the targets.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before torch loads

import torch

from experiments.spec import Spec, parse_spec, resolved
from experiments.submissions.presets import presets
from workers.protocol import Message
from workers.trainer.recording.recorder import Recorder
from workers.trainer.training.loop import train

RESULTS = Path(__file__).parent / "results"
TARGETS = {"eval/prompt_iou": 0.75, "eval/box_iou": 0.55, "eval/presence_accuracy": 0.90}
MINUTES = 10


class Watched(Recorder):
    """Keeps the evaluations and probes, and prints what the log would say."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        super().__init__(_nobody, elapsed)
        self.kept: dict[str, dict[int, dict[str, float]]] = {"eval": {}, "probe": {}}

    def add(self, group: str, step: int, values: Any) -> None:
        super().add(group, step, values)
        if group in self.kept:
            self.kept[group][step] = {name: round(value, 4) for name, value in values.items()}

    def log(self, text: str) -> None:
        print(f"{self.elapsed():6.0f} s  {text}", flush=True)


def main() -> None:
    options = _options()
    began = [one_seed(_spec(seed, options.steps)) for seed in options.seeds]
    report = {
        "preset": "sam3-lite",
        "spec": resolved(_spec(0, options.steps)),
        "machine": _machine(),
        "targets": {**TARGETS, "minutes": MINUTES},
        "met": all(_met(seed) for seed in began),
        "seeds": began,
    }
    path = RESULTS / f"sam3-lite-scenes-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(path)


def one_seed(spec: Spec) -> dict[str, Any]:
    """Train once; the figures of the last step, those on the way, and the seconds: of the wall and of the CPU."""
    started, cpu = time.monotonic(), time.process_time()
    recorder = Watched(lambda: time.monotonic() - started)
    with tempfile.TemporaryDirectory() as scratch:
        train(spec, recorder, lambda: None, scratch=Path(scratch))
    evaluations = recorder.kept["eval"]
    return {
        "seed": spec.seed,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "last": evaluations[max(evaluations)],
        "evaluations": evaluations,
        "probes": recorder.kept["probe"],
    }


def _met(seed: dict[str, Any]) -> bool:
    return seed["seconds"] <= 60 * MINUTES and all(seed["last"][name] >= least for name, least in TARGETS.items())


def _spec(seed: int, steps: int) -> Spec:
    raw = presets()["sam3-lite"].spec
    return parse_spec({**raw, "seed": seed, "train": {**raw["train"], "steps": steps}})


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    return parser.parse_args()


def _nobody(message: Message, payload: bytes = b"") -> None:
    """The benchmark has no service to tell."""


if __name__ == "__main__":
    main()
