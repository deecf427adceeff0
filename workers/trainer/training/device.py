"""The device of a run, configured so that a repetition gives the same bits."""

from __future__ import annotations

import os

import torch
from torch.utils import deterministic

from experiments.spec import Spec


def pinned_device(spec: Spec) -> torch.device:
    """The spec's device, with a fixed number of threads, and deterministic kernels unless the spec says otherwise."""
    torch.set_num_threads(spec.resources.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(spec.train.deterministic, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # on by default: convolutions of fp32 would round to 10 bits
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time
    wanted = spec.resources.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("resources.device is cuda, and this machine has no CUDA device")
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
