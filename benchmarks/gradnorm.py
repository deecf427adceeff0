"""What recording costs: every norm of every matrix and head at every step, and probes every 50 steps.

    python -m benchmarks.gradnorm [--device cuda] [--trials 7] [--steps 6]

A bare step is forward, backward and AdamW; a recorded one adds all that a session records. Writes
benchmarks/results/gradnorm-<device>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before torch loads

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.encoder import encoder_spec, interleaved, machine, nobody, paired, wait
from workers.trainer.recording.norms import total_norm
from workers.trainer.recording.probe import probe
from workers.trainer.recording.recorder import Recorder
from workers.trainer.training.loop import Session
from workers.trainer.training.stopwatch import Stopwatch

RESULTS = Path(__file__).parent / "results"
TARGETS = {"recording": 1.01, "with_probes": 1.03}
PROBE_EVERY = 50
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")


class Steps:
    """One session whose next step is taken bare or recorded."""

    def __init__(self, device: str) -> None:
        began = time.monotonic()
        recorder = Recorder(nobody, lambda: time.monotonic() - began)
        self.session = Session(encoder_spec(device), recorder, Path(tempfile.gettempdir()))
        self.session.open(0)
        self.step = 0

    def bare(self) -> None:
        self.session.backward(self.step)
        self.session.optimizer.step()

    def recorded(self) -> None:
        session = self.session
        losses = session.backward(self.step)
        norm = total_norm(session.gradients)
        session.norms.before()
        session.optimizer.step()
        session.report(self.step, losses, (1e-4, norm, torch.ones_like(norm)), Stopwatch(session.device))
        session.recorder.complete(self.step)
        self.step += 1


def main() -> None:
    options = _options()
    steps = Steps(options.device)
    ways: dict[str, Callable[[], None]] = {"bare": steps.bare, "recorded": steps.recorded}
    for way in ways.values():
        way()
        way()
    samples = interleaved(ways, options.device, options.trials, options.steps)
    bare = statistics.median(samples["bare"])
    looking = _milliseconds(lambda: probe(steps.session.task, per_head=True), options.device, 5)
    recording = paired(samples, "recorded", "bare")
    alone = _recording_alone(steps, options.device)
    report: dict[str, Any] = {
        "parameters": sum(each.numel() for each in steps.session.task.model.parameters()),
        "series": len(steps.session.norms.names) + 6,
        "machine": machine(options.device),
        "bare_ms": round(bare, 2),
        "recording": recording,
        "recording_alone_ms": round(alone, 3),
        "recording_alone": round(1 + alone / bare, 4),
        "probe_ms": round(looking, 1),
        "with_probes": round(recording["ratio"] + looking / bare / PROBE_EVERY, 4),
        "with_probes_alone": round(1 + alone / bare + looking / bare / PROBE_EVERY, 4),
        "waits_in_a_step": {"bare": _waits(steps.bare), "recorded": _waits(steps.recorded)},
        "targets": TARGETS,
        "trials": samples,
    }
    path = RESULTS / f"gradnorm-{options.device}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "trials"}, indent=1))


def _recording_alone(steps: Steps, device: str) -> float:
    """Milliseconds of what a recorded step does beside the bare one, with gradients at hand."""
    session = steps.session
    losses = session.backward(0)

    def record() -> None:
        norm = total_norm(session.gradients)
        session.norms.before()
        session.report(steps.step, losses, (1e-4, norm, torch.ones_like(norm)), Stopwatch(session.device))
        session.recorder.complete(steps.step)
        steps.step += 1

    return _milliseconds(record, device, 50)


def _milliseconds(work: Callable[[], object], device: str, times: int) -> float:
    """Median of the CPU's time on a CPU, of the wall's on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    samples = []
    for _ in range(times):
        began = clock()
        work()
        wait(device)
        samples.append(1000 * (clock() - began))
    return statistics.median(samples)


def _waits(step: Callable[[], None]) -> dict[str, int]:
    """How often the host waited for the device in one step, from the profiler's trace."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as trace:
        step()
    return {event.key: event.count for event in trace.key_averages() if event.key in WAITS}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
