"""Attention maps of the first validation samples at chosen steps: pooled and quantised on the device, then a file.

Shapes: H heads, T query positions, S key positions; T', S' after pooling, at most SIDE each.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.spec import QuestionSpec, Spec
from workers.protocol import Artifact
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.data.images.samples import Samples
from workers.trainer.inspection.model_input import ModelInput
from workers.trainer.inspection.readers import READERS
from workers.trainer.inspection.views import Views, watched
from workers.trainer.task import Task

SAMPLES = 4
SIDE = 64  # positions of a pooled axis
MOST = 2 * 2**20  # bytes of one step before compression
KEPT = 20  # steps with maps in a run that sets no `record.maps_every`, approximately


def due(spec: Spec, step: int) -> bool:
    """At every `record.maps_every` steps and the last; if that is not set, at about KEPT of a run's probes."""
    every = spec.record.maps_every
    if every is None:
        probes = spec.train.steps // spec.record.probe_every + 1
        every = spec.record.probe_every * -(-probes // KEPT)
    return every > 0 and (step % every == 0 or step + 1 == spec.train.steps)


@torch.no_grad()
def write(task: Task, name: str, step: int, folder: Path) -> Iterator[Artifact]:
    """Write the maps of this step, and a description of their samples; nothing for tasks without a reader. Costs a
    forward pass of SAMPLES single samples in evaluation mode and one copy to the host for each site."""
    if name not in READERS:
        return
    inputs = [READERS[name](task, QuestionSpec(sample=index)) for index in range(_sample_count(task))]
    with evaluating(task.model):
        views = [_views(task, model_input) for model_input in inputs]
    side = _side(views)
    arrays, sites = {}, {}
    for sample, (model_input, views_by_site) in enumerate(zip(inputs, views, strict=True)):
        grid = model_input.about.get("grid")
        for site, view in views_by_site.items():
            axes, counts = model_input.axes(site), view.weights.shape[1:]
            groups = (groups_of(count, kind, grid, side) for count, kind in zip(counts, axes, strict=True))
            small = pooled(view.weights, *groups)
            arrays[f"{sample}/{site}"], arrays[f"{sample}/{site}/scale"] = quantised(small)
            sites[site] = {"name": site, "heads": len(small), "asks": axes[0], "answers": axes[1]}
    facts = {"sites": list(sites.values()), "samples": len(inputs), "side": side}
    yield _file(folder / f"maps-{step:08d}.npz", "maps", step, _packed(arrays), facts)
    about = json.dumps([model_input.about for model_input in inputs], ensure_ascii=False).encode()
    # A folder for each step: the supervisor deletes the former file as soon as it has stored it.
    yield _file(folder / f"maps-{step:08d}" / "maps-samples.json", "samples", None, about, {})


def _sample_count(task: Task) -> int:
    """A small folder may hold back fewer than SAMPLES images."""
    validation = getattr(task, "validation", None)
    return min(SAMPLES, validation.size) if isinstance(validation, Samples) else SAMPLES


def pooled(weights_HTS: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """[H, T', S']: the mean over the query positions of a group, the sum over its key positions: rows sum to 1."""
    mean = _indicator(queries, weights_HTS)
    return (mean / mean.sum(-1, keepdim=True)) @ weights_HTS @ _indicator(keys, weights_HTS).T


def quantised(weights_HTS: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint8 [H, T, S] and each head's scale: a weight is value · scale ÷ 255. Non-finite weights become 0."""
    weights = weights_HTS.float().nan_to_num(0.0, 0.0, 0.0)
    scale = weights.amax((1, 2)).clamp(min=1e-9)
    small = (weights / scale[:, None, None] * 255).round().to(torch.uint8)
    return small.cpu().numpy(), scale.cpu().numpy()


def _views(task: Task, model_input: ModelInput) -> Views:
    with watched(task.model) as views:
        model_input.run(task.model)
    return views


def _side(views: list[Views]) -> int:
    """SIDE, or less if many layers and heads would take more than MOST bytes."""
    heads = sum(view.weights.shape[0] for views_by_site in views for view in views_by_site.values())
    side = SIDE
    while side > 8 and heads * side * side > MOST:
        side //= 2
    return side


def groups_of(count: int, kind: str, grid: int | None, side: int) -> Tensor:
    """[count]: the group of each position, at most `side` groups; a group of patches is a square of neighbours."""
    positions = torch.arange(count)
    if kind == "patch" and grid is not None:
        step = next(step for step in range(1, grid + 1) if (-(-grid // step)) ** 2 <= side)
        return positions // grid // step * -(-grid // step) + positions % grid // step
    return positions if count <= side else positions * side // count


def _indicator(groups: Tensor, like: Tensor) -> Tensor:
    """[groups, positions] of 0 and 1."""
    return (torch.arange(int(groups.max()) + 1)[:, None] == groups).to(like.device, like.dtype)


def _packed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _file(path: Path, name: str, step: int | None, data: bytes, meta: dict[str, Any]) -> Artifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    kind = "application/octet-stream" if step is not None else "application/json"
    return Artifact(kind="map", name=name, path=str(path), media_type=kind, step=step, meta=meta)
