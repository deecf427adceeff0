"""Stored attention maps of a run: their steps, and one map at a step."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from django.core.files.storage import default_storage
from numpy.typing import NDArray

from experiments.models import Artifact, Run
from experiments.spec.errors import did_you_mean

MOST_BYTES = 16 * 2**20  # of a stored file; those we write are smaller


class NoMap(Exception):
    """There is no such map; the message says why."""


class UnknownMap(Exception):
    """No map is stored of this site or sample; `field` says which of the two is wrong."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def steps_with_maps(run: Run) -> list[int]:
    """Steps in order."""
    maps = Artifact.objects.filter(run=run, kind="map", name="maps", step__isnull=False)
    return [step for step in maps.order_by("step").values_list("step", flat=True) if step is not None]


def stored_map(run: Run, site: str | None, step: int | None, sample: int) -> dict[str, Any]:
    """The map of a site at the newest step up to `step`, for one of the stored samples. Raises NoMap, UnknownMap."""
    maps = Artifact.objects.filter(run=run, kind="map", name="maps", step__isnull=False)
    upto = maps if step is None else maps.filter(step__lte=step)
    file = upto.order_by("-step").first() or maps.order_by("step").first()
    if file is None:
        raise NoMap("this run has stored no maps (yet)")
    sites = [site_meta["name"] for site_meta in file.meta.get("sites", [])]
    chosen = site or next(reversed(sites), "")
    if chosen not in sites:
        hint = did_you_mean(chosen, sites) or f"; known: {', '.join(sites)}"
        raise UnknownMap("site", f"no map is stored of the site '{chosen}'{hint}")
    if sample >= (samples := file.meta.get("samples", 0)):
        stored = "only sample 0 is" if samples == 1 else f"samples 0 to {samples - 1} are"
        raise UnknownMap("sample", f"no map is stored of sample {sample}; {stored}")
    weights = _weights(file, f"{sample}/{chosen}")
    return {"step": file.step, "site": chosen, "sample": sample, **file.meta, **_about(run, sample), "weights": weights}


def _weights(file: Artifact, key: str) -> NDArray[np.float32]:
    """[heads, query positions, key positions]"""
    with np.load(io.BytesIO(_read(file)), allow_pickle=False) as arrays:
        small, scale = arrays[key], arrays[f"{key}/scale"]
    weights: NDArray[np.float32] = small.astype(np.float32) * (scale[:, None, None] / np.float32(255))
    return np.ascontiguousarray(weights.round(4))


def _about(run: Run, sample: int) -> dict[str, Any]:
    """The sample: its tokens, and its image as base64 if it has one."""
    file = Artifact.objects.filter(run=run, kind="map", name="samples").order_by("-id").first()
    about = json.loads(_read(file))[sample] if file else {}
    shown = ("tokens", "marks", "prompt", "grid", "image", "asked")
    return {"about": {name: about[name] for name in shown if name in about}}


def _read(file: Artifact) -> bytes:
    if file.size > MOST_BYTES:
        raise NoMap("the stored file is larger than expected")
    try:
        with default_storage.open(file.path) as stored:
            return bytes(stored.read())
    except FileNotFoundError:
        raise NoMap("the file is no longer stored") from None
