"""Kernels of attention: what each mixes and hands back beside the plain formula in double precision, and what probes
say of a model under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.smoke.report import Line
from benchmarks.smoke.specs import spec
from workers.trainer.attention import Attention, fused_attention, plain_attention
from workers.trainer.recording.probe import probe
from workers.trainer.task import Task
from workers.trainer.tasks.registry import build_task

KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
PRODUCTS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of a tensor's norm
PROBES = 2e-5  # of a value, in fp32
SHAPE = 3, 4, 50, 16  # BHTD


def products(device: str) -> Iterator[Line]:
    """The mix, dQ, dK and dV of one call, with a mask and without."""
    for dtype, limit in PRODUCTS.items():
        for kernel, backend in KERNELS.items():
            for masked in (False, True):
                check = f"{kernel} kernel, {str(dtype).removeprefix('torch.')}{', mask' if masked else ''}"
                given, mask = _given(device, dtype, masked)
                try:
                    with sdpa_kernel([backend]):
                        found = _products(fused_attention, given, mask)
                except RuntimeError as error:
                    yield _without(check, device, error)
                    continue
                truth = _products(plain_attention, [each.double() for each in given], mask)
                error = max(float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True))
                figure = f"mix, dQ, dK, dV: largest relative difference from the formula {error:.1e} (limit {limit:g})"
                yield Line(check, figure, error <= limit)


def _given(device: str, dtype: torch.dtype, masked: bool) -> tuple[list[Tensor], Tensor | None]:
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(SHAPE, generator=random).to(device, dtype) for _ in range(3)]
    mask = torch.arange(SHAPE[2], device=device) < torch.tensor([50, 31, 7], device=device)[:, None]
    return given, mask[:, None, None] if masked else None


def _products(attend: object, given: list[Tensor], mask: Tensor | None) -> list[Tensor]:
    q, k, v = (each.clone().requires_grad_() for each in given)
    mix: Tensor = attend(q, k, v, mask, 0.3)  # type: ignore[operator]
    mix.square().sum().backward()
    return [each.detach().double() for each in (mix, q.grad, k.grad, v.grad) if each is not None]


def _without(check: str, device: str, error: RuntimeError) -> Line:
    """Skipped where torch says that no kernel is left; any other error is one."""
    if not any(words in str(error) for words in ("No available kernel", "No viable backend")):
        raise error
    return Line(check, f"torch has no such kernel for this input on {device}", None)


def probes(device: str, names: tuple[str, ...]) -> Iterator[Line]:
    """A model probed and evaluated under each kernel. One that takes no fp32 there is skipped."""
    for name in names:
        task = build_task(spec(name, device, model={"attention": {"init": "xavier"}}), torch.device(device))
        truth = _told(task, None)
        for kernel, backend in KERNELS.items():
            check = f"probes under the {kernel} kernel: {name}"
            try:
                found = _told(task, backend)
            except RuntimeError as error:
                yield _without(check, device, error)
                continue
            differences = {n: abs(found[n] - v) / max(abs(v), 1e-2) for n, v in truth.items()}
            worst = max(differences, key=lambda n: differences[n])
            figure = f"{len(truth)} values, largest difference from the plain formula {differences[worst]:.1e}"
            yield Line(check, f"{figure} ({worst}; limit {PROBES:g})", differences[worst] <= PROBES)


def _told(task: Task, backend: SDPBackend | None) -> dict[str, float]:
    """What probes say of attention, and the evaluation's loss, under one kernel; None: the formula written out."""
    sites = [module for module in task.model.modules() if isinstance(module, Attention)]
    fused = [site.attend for site in sites]
    for site in sites if backend is None else ():
        site.attend = plain_attention
    try:
        with sdpa_kernel([backend]) if backend is not None else nullcontext():
            values = probe(task) | {"eval/loss": task.evaluate()["loss"]}
    finally:
        for site, attend in zip(sites, fused, strict=True):
            site.attend = attend
    # Pointing counts the largest weights, which jump where two are nearly equal.
    return {n: value for n, value in values.items() if n.startswith(("attn/", "eval/")) and "/pointing/" not in n}
