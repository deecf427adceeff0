"""How large the entries of every matrix and of its gradient are, at some probes: counts by magnitude.

Bins are the same at every step and in every run, a quarter of a decade each, so that a history can be drawn as one
picture and runs compare: magnitudes say where gradients vanish, signs do not.
"""

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
NAME, KEPT = "histograms", 64  # at most so many probes of a run keep them


def due(step: int, steps: int, probe_every: int) -> bool:
    """Every probe of a short run, every n-th of a long one, and the last step."""
    probes = math.ceil(steps / probe_every)
    stride = probe_every * math.ceil(probes / KEPT)
    return step % stride == 0 or step + 1 == steps


@torch.no_grad()
def histograms(model: nn.Module) -> dict[str, list[int]]:
    """By `<gradient|weight>/<site>/<matrix>`: see `counts`. Gradients are those that the optimizer has just used,
    after clipping. Copies once to the host."""
    found = {}
    for name, part in parts(model):
        found[f"gradient/{name}"] = counts(part.grad)
        found[f"weight/{name}"] = counts(part.detach())
    if not found:
        return {}
    rows: list[list[int]] = torch.stack(list(found.values())).tolist()
    return dict(zip(found, rows, strict=True))


def counts(values: Tensor) -> Tensor:
    """Entries below 10^LOWEST (zeros among them), in each bin from there to 10^HIGHEST, above, and not finite. By
    sorting: a count by scattering has no order on a GPU."""
    exponents = torch.arange(LOWEST * PER_DECADE, HIGHEST * PER_DECADE + 1, device=values.device) / PER_DECADE
    sizes = values.float().abs().flatten()
    broken = (~sizes.isfinite()).sum()
    ordered = sizes.nan_to_num(nan=math.inf).sort().values
    below = torch.searchsorted(ordered, 10.0**exponents)  # entries under each edge
    above = len(sizes) - below[-1] - broken
    return torch.cat([below[:1], below.diff(), torch.stack([above, broken])])


def write(model: nn.Module, step: int, scratch: Path) -> Artifact:
    """One small JSON file of a probe."""
    path = scratch / f"step-{step:08d}-{NAME}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"lowest": LOWEST, "highest": HIGHEST, "per_decade": PER_DECADE}
    path.write_text(json.dumps({"step": step, **about, "counts": histograms(model)}))
    return Artifact(kind="file", name=NAME, path=str(path), media_type="application/json", step=step, meta=about)
