"""Histograms of the magnitudes of every matrix and its gradient, at some probes.

Bins are a quarter of a decade, the same at every step and in every run, so that steps and runs can be compared.
Magnitudes, not signs, show where gradients vanish."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.protocol import Artifact
from workers.trainer.attention.sites import parts

LOWEST, HIGHEST, PER_DECADE = -10, 2, 4
NAME, KEPT = "histograms", 64  # probes of a run with histograms, at most


def due(step: int, steps: int, probe_every: int) -> bool:
    """Every probe of a short run, every n-th of a long one, and the last step."""
    probes = math.ceil(steps / probe_every)
    stride = probe_every * math.ceil(probes / KEPT)
    return step % stride == 0 or step + 1 == steps


@torch.no_grad()
def histograms(model: nn.Module) -> dict[str, list[int]]:
    """`counts` by `<gradient|weight>/<site>/<matrix>`. Gradients are the clipped ones that the optimizer has just used.
    Copies once to the host."""
    by_name = {}
    for name, part in parts(model):
        by_name[f"gradient/{name}"] = counts(part.grad)
        by_name[f"weight/{name}"] = counts(part.detach())
    if not by_name:
        return {}
    rows: list[list[int]] = torch.stack(list(by_name.values())).tolist()
    return dict(zip(by_name, rows, strict=True))


def counts(values: Tensor) -> Tensor:
    """Number of entries below 10^LOWEST (zeros included), in each bin up to 10^HIGHEST, above it, and not finite. By
    sorting: counting by scattering is not deterministic on a GPU."""
    exponents = torch.arange(LOWEST * PER_DECADE, HIGHEST * PER_DECADE + 1, device=values.device) / PER_DECADE
    sizes = values.float().abs().flatten()
    non_finite = (~sizes.isfinite()).sum()
    ordered = sizes.nan_to_num(nan=math.inf).sort().values
    below = torch.searchsorted(ordered, 10.0**exponents)  # entries under each edge
    above = len(sizes) - below[-1] - non_finite
    return torch.cat([below[:1], below.diff(), torch.stack([above, non_finite])])


def write(model: nn.Module, step: int, scratch: Path) -> Artifact:
    """Write one small JSON file."""
    path = scratch / f"step-{step:08d}-{NAME}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"lowest": LOWEST, "highest": HIGHEST, "per_decade": PER_DECADE}
    path.write_text(json.dumps({"step": step, **about, "counts": histograms(model)}))
    return Artifact(kind="file", name=NAME, path=str(path), media_type="application/json", step=step, meta=about)
