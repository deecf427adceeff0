"""Attention maps of the first validation samples at chosen steps: pooled and quantised on the device, then a file.

Shapes: H heads, T askers, S answerers; T', S' after pooling, at most SIDE each.
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
from workers.trainer.inspection.given import Given
from workers.trainer.inspection.readers import READERS
from workers.trainer.inspection.views import Views, watched
from workers.trainer.task import Task

SAMPLES = 4
SIDE = 64  # places of an axis
MOST = 2 * 2**20  # bytes of one step before compression
KEPT = 20  # steps with maps, about, in a run that does not say


def due(spec: Spec, step: int) -> bool:
    """At every `record.maps_every` steps and the last; unless told, at the probes thinned to about KEPT a run."""
    every = spec.record.maps_every
    if every is None:
        probes = spec.train.steps // spec.record.probe_every + 1
        every = spec.record.probe_every * -(-probes // KEPT)
    return every > 0 and (step % every == 0 or step + 1 == spec.train.steps)


@torch.no_grad()
def kept(task: Task, name: str, step: int, folder: Path) -> Iterator[Artifact]:
    """Write the maps of this moment, and what they are of; nothing for tasks that cannot be asked. Costs a forward
    pass of SAMPLES single samples in evaluation mode and one copy to the host a site."""
    if name not in READERS:
        return
    given = [READERS[name](task, QuestionSpec(sample=index)) for index in range(_there(task))]
    with evaluating(task.model):
        views = [_seen(task, one) for one in given]
    side = _side(views)
    arrays, sites = {}, {}
    for sample, (one, view) in enumerate(zip(given, views, strict=True)):
        for site, seen in view.items():
            axes, grid = one.axes(site), one.about.get("grid")
            groups = (groups_of(seen.weights.shape[at + 1], axes[at], grid, side) for at in (0, 1))
            small = pooled(seen.weights, *groups)
            arrays[f"{sample}/{site}"], arrays[f"{sample}/{site}/scale"] = quantised(small)
            sites[site] = {"name": site, "heads": len(small), "asks": axes[0], "answers": axes[1]}
    facts = {"sites": list(sites.values()), "samples": len(given), "side": side}
    yield _file(folder / f"maps-{step:08d}.npz", "maps", step, _packed(arrays), facts)
    about = json.dumps([one.about for one in given], ensure_ascii=False).encode()
    # A folder a moment: the file of the one before goes away as soon as the supervisor has stored it.
    yield _file(folder / f"maps-{step:08d}" / "maps-samples.json", "samples", None, about, {})


def _there(task: Task) -> int:
    """How many samples maps are of: a small folder may hold back fewer than SAMPLES images."""
    validation = getattr(task, "validation", None)
    return min(SAMPLES, validation.size) if isinstance(validation, Samples) else SAMPLES


def pooled(weights_HTS: Tensor, askers: Tensor, answerers: Tensor) -> Tensor:
    """[H, T', S']: the mean over the askers of a group, the sum over its answerers, so that rows still sum to 1."""
    mean = _indicator(askers, weights_HTS)
    return (mean / mean.sum(-1, keepdim=True)) @ weights_HTS @ _indicator(answerers, weights_HTS).T


def quantised(weights_HTS: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint8 [H, T, S] and each head's scale: a weight is value · scale ÷ 255. Non-finite weights become 0."""
    weights = weights_HTS.float().nan_to_num(0.0, 0.0, 0.0)
    scale = weights.amax((1, 2)).clamp(min=1e-9)
    small = (weights / scale[:, None, None] * 255).round().to(torch.uint8)
    return small.cpu().numpy(), scale.cpu().numpy()


def _seen(task: Task, one: Given) -> Views:
    with watched(task.model) as seen:
        one.run(task.model)
    return seen


def _side(views: list[Views]) -> int:
    """SIDE, or less where many layers and heads would be too much."""
    heads = sum(seen.weights.shape[0] for view in views for seen in view.values())
    side = SIDE
    while side > 8 and heads * side * side > MOST:
        side //= 2
    return side


def groups_of(count: int, kind: str, grid: int | None, side: int) -> Tensor:
    """[count]: the group of each place, at most `side` of them; patches stay neighbours in both directions."""
    places = torch.arange(count)
    if kind == "patch" and grid is not None:
        step = next(step for step in range(1, grid + 1) if (-(-grid // step)) ** 2 <= side)
        return places // grid // step * -(-grid // step) + places % grid // step
    return places if count <= side else places * side // count


def _indicator(groups: Tensor, like: Tensor) -> Tensor:
    """[groups, places] of 0 and 1."""
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
