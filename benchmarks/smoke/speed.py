"""How fast and how large the training of the segmenter's usual size is here. Told, not judged."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.smoke.received import Received
from benchmarks.smoke.report import Line
from benchmarks.smoke.specs import spec
from workers.trainer.recording.recorder import Recorder
from workers.trainer.training.loop import train

WARM = 5
USUAL = {"d_model": 128, "heads": 4, "ffn": 256}


def speed(device: str, name: str, steps: int, precisions: tuple[str, ...], folder: Path) -> Iterator[Line]:
    """Steps a second with everything recorded, the device waited for at both ends; peak memory; and whether the
    series of step times agrees with the clock."""
    for precision in precisions:
        train_section = {"steps": steps + WARM, "batch_size": 16, "precision": precision}
        run = spec(name, device, train=train_section, model=USUAL)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        marks: list[float] = []
        received = Received()

        def ended(device: str = device, marks: list[float] = marks) -> None:
            if len(marks) in (WARM - 1, steps + WARM - 2) and device == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        train(run, Recorder(received, lambda: 0.0), ended, scratch=folder)
        measured = 1000 * (marks[steps + WARM - 2] - marks[WARM - 1]) / (steps - 1)
        told = [received.points["time/step_ms"][step] for step in range(WARM, steps + WARM - 1)]
        mean = sum(told) / len(told)
        pace = f"{1000 / measured:.1f} steps/s, {_memory(device)}"
        figure = f"{pace}; time/step_ms says {mean:.2f} ms, the clock {measured:.2f} ms"
        yield Line(f"speed: {name} {precision}", figure, 0.5 < mean / measured < 1.2)


def _memory(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB allocated on the device at most"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB resident at most"
