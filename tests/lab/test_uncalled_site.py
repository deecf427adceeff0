"""An attention site of our own that the probe does not reach has no value there, and ends nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from experiments.spec import Attention as AttentionSpec
from workers.trainer.attention.variants import build_attention
from workers.trainer.recording.probe import probe, probe_names

WIDTH = 8


def test_a_site_that_is_never_called_reads_nan() -> None:
    spec = AttentionSpec.model_validate({})
    model = nn.ModuleDict({name: build_attention(WIDTH, 2, spec, "self") for name in ("used", "spare")})
    x = torch.randn(2, 5, WIDTH)

    def look(_seen: Any) -> dict[str, Any]:
        model["used"](x, x)
        return {}

    task: Any = SimpleNamespace(model=model, probe=look, measures=())
    values = probe(task, per_head=True)
    assert sorted(values) == sorted(probe_names(task, per_head=True))
    assert all(math.isnan(value) == ("/spare" in name) for name, value in values.items())
