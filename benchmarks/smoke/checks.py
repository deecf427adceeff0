"""Which checks run, in which order: what a worker does first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.encoder import machine
from benchmarks.smoke.kernels import probes, products
from benchmarks.smoke.maps import stored_maps
from benchmarks.smoke.norms import norms
from benchmarks.smoke.own_loop import foreign, own_loop
from benchmarks.smoke.report import Check, Report
from benchmarks.smoke.specs import spec
from benchmarks.smoke.speed import speed
from benchmarks.smoke.training import INITS, processes, resumed, same_as_cpu, variants
from workers.trainer.training.device import pinned_device

ALL = ("pointer", "roles", "scenes")
LIBRARIES = ("transformers", "timm", "peft")


def run(device: str, *, short: bool, scratch: Path) -> Report:
    """Every check on one device. `short`: one task and few cases of each."""
    pinned_device(spec("pointer", device))
    about = _machine(device)
    report = Report(about["device"] if device == "cuda" else f"cpu-{about['device']}", about)
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    for name, check in _checks(device, short, scratch).items():
        report.run(name, check)
    return report


def _checks(device: str, short: bool, scratch: Path) -> dict[str, Check]:
    names = ("pointer",) if short else ALL
    halves = ("fp32",) if short else ("fp32", "bf16", "fp16")
    cases = (
        (("pointer", "fp32"),) if short else (*((name, "fp32") for name in ALL), ("scenes", "bf16"), ("roles", "fp16"))
    )
    checks: dict[str, Check] = {
        "trainer process": partial(processes, device, names, scratch / "process"),
        "norms against autograd": partial(norms, device, names, halves, scratch / "norms"),
        "as on the CPU": partial(same_as_cpu, device, names, scratch / "cpu"),
        "killed and resumed": partial(resumed, device, cases, scratch / "resumed"),
        "variants": partial(variants, device, names[:1], INITS[:1] if short else INITS, scratch / "variants"),
        "kernels": partial(products, device),
        "probes under kernels": partial(probes, device, names),
        "stored maps": partial(stored_maps, device, names, scratch / "maps"),
    }
    if not short:
        checks["variants of scenes"] = partial(variants, device, ("scenes",), INITS[:1], scratch / "scenes")
    for precision in ("fp16",) if short else ("fp32", "bf16", "fp16"):
        checks[f"own loop, torch.nn: {precision}"] = partial(own_loop, device, precision, scratch / "own")
    for library in () if short else LIBRARIES:
        checks[f"own loop, {library}"] = partial(foreign, library, device, scratch / "own")
    pace = ("pointer", 5, ("fp32",)) if short else ("scenes", 30, ("fp32", "bf16"))
    checks["speed"] = partial(speed, device, *pace, scratch / "speed")
    return checks


def _machine(device: str) -> dict[str, Any]:
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return machine(device) | (versions if device == "cuda" else {})
