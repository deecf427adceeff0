"""The five-million-parameter encoder whose steps the cost benchmarks time, and how they time them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from experiments.spec import Spec, parse_spec
from workers.protocol import Message


def encoder_spec(device: str, steps: int = 10_000) -> Spec:
    """Six pre-norm layers of width 256 with 8 heads, 16 sequences of 128 characters out of 512 at once, AdamW; one
    thread. Nothing is evaluated, probed or saved between the first step and the last."""
    never = {"eval_every": steps, "checkpoint_every": steps, "predictions": 0}
    raw = {
        "task": "language",
        "data": {"dataset": "text", "context": 128, "characters": 512},
        "model": {"d_model": 256, "heads": 8, "ffn": 1024, "layers": 6, "attention": {"init": "xavier"}},
        "optimizer": {"lr": 1e-4, "warmup_steps": 0, "schedule": "constant", "clip_norm": None, "weight_decay": 0},
        "train": {"steps": steps, "batch_size": 16, **never},
        "record": {"probe_every": steps, "finals": False},
        "resources": {"device": device, "threads": 1},
    }
    return parse_spec(raw)


def interleaved(steps: Mapping[str, Callable[[], None]], device: str, trials: int, each: int) -> dict[str, list[float]]:
    """Milliseconds of every way, one median a trial: one step of each in turn, the order rotated, so that a busy
    moment of the machine meets all of them. Of this process's CPU on a CPU, of the wall on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    order, samples = list(steps), {name: list[float]() for name in steps}
    for _ in range(trials):
        times = {name: list[float]() for name in steps}
        for _ in range(each):
            order = order[1:] + order[:1]
            for name in order:
                began = clock()
                steps[name]()
                wait(device)
                times[name].append(1000 * (clock() - began))
        for name, values in times.items():
            samples[name].append(statistics.median(values))
    return samples


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def paired(samples: Mapping[str, list[float]], name: str, base: str) -> dict[str, float]:
    """The median ratio of two ways within a trial, and its spread."""
    ratios = [value / of for value, of in zip(samples[name], samples[base], strict=True)]
    return {"ratio": round(statistics.median(ratios), 4), "low": round(min(ratios), 4), "high": round(max(ratios), 4)}


def machine(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def nobody(_message: Message, _payload: bytes = b"") -> None:
    """A benchmark has no service to tell."""
