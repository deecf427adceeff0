"""Recorded gradient norms against autograd's: weights from the checkpoint of each step, slices of heads cut by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.smoke.received import trained
from benchmarks.smoke.report import Line
from benchmarks.smoke.specs import spec
from experiments.spec import Spec
from workers.protocol import Checkpoint
from workers.trainer.tasks.registry import build_task

STEPS = 4
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# In half precision the same kernels round the same way; what is left is the loss scale and the order of sums.
LIMITS = {"fp32": 1e-5, "bf16": 1e-4, "fp16": 1e-4}


def norms(device: str, names: tuple[str, ...], precisions: tuple[str, ...], folder: Path) -> Iterator[Line]:
    """Every W_q, W_k, W_v, whole and per head, and the total, at the steps after a checkpoint."""
    for name in names:
        for precision in precisions:
            place = folder / f"{name}-{precision}"
            run = spec(name, device, train={"steps": STEPS, "checkpoint_every": 1, "precision": precision})
            received = trained(run, place)
            worst, where, count = 0.0, "none", 0
            for saved in received.of(Checkpoint)[:-1]:
                for series, truth in _autograd(run, device, saved).items():
                    error = abs(received.points[series][saved.step] - truth) / truth
                    count += 1
                    if not error <= worst:
                        worst, where = error, f"{series} at step {saved.step}"
            limit = LIMITS[precision]
            figure = f"{count} norms, largest relative difference {worst:.1e} ({where}; limit {limit:g})"
            yield Line(f"norms against autograd: {name} {precision}", figure, count > 0 and worst <= limit)


def _autograd(run: Spec, device: str, saved: Checkpoint) -> dict[str, float]:
    """The norms of one step, in double precision, from the weights before it."""
    task = build_task(run, torch.device(device))
    kept = load_file(saved.path, device=device)
    weights = {name.removeprefix("weight/"): value for name, value in kept.items() if name.startswith("weight/")}
    task.model.load_state_dict(weights)
    dtype, scale = HALVES.get(run.train.precision), 1.0
    if dtype is torch.float16:
        scale = float(kept["kept/precision/scale"])
    named = dict(task.model.named_parameters())
    torch.use_deterministic_algorithms(True)  # as training passes have it: kernels that add up in one order
    with torch.autocast(device, dtype) if dtype else nullcontext():
        loss = task.losses(saved.step)["total"]
    found = torch.autograd.grad(loss * scale, list(named.values()), allow_unused=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    gradients = {n: g.double() / scale for n, g in zip(named, found, strict=True) if g is not None}
    total = sum(float(gradient.square().sum()) for gradient in gradients.values()) ** 0.5
    return {"grad_norm/total": total, **_heads(gradients, run)}


def _heads(gradients: dict[str, Tensor], run: Any) -> dict[str, float]:
    told: dict[str, float] = {}
    for name, gradient in gradients.items():
        site, _, matrix = name.rpartition(".")
        if matrix not in ("W_q", "W_k", "W_v"):
            continue
        series = f"grad_norm/{site.removesuffix('_attention')}/{matrix}"
        told[series] = float(gradient.norm())
        width = gradient.shape[1] // run.model.heads
        for head in range(run.model.heads):
            told[f"{series}/head.{head}"] = float(gradient[:, head * width : (head + 1) * width].norm())
    return {series: value for series, value in told.items() if value > 1e-9}
