"""Writing series. Everything here runs inside the caller's fenced transaction."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from django.db.models import F, Sum
from numpy.typing import NDArray

from experiments.models import Frame, Group, Headline
from experiments.store.blocks import codec
from experiments.store.headline import Stats, finite_or_none

from .seal import unseal

# Series that the runs table can show, sort and filter by; all others are in the groups' stats only.
_HEADLINE_PREFIXES = ("loss/", "eval/", "test/", "attn/", "lr", "grad_norm/total", "grad_norm/clip_scale", "time/")


@dataclass(frozen=True)
class Incoming:
    """New points of one group: `steps` int64 [n] rising, `times` float64 [n] in seconds since the run
    started, `values` float32 [n, series] in the order of `names`."""

    group: str
    names: list[str]
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]


def append(run_id: int, frames: Sequence[Incoming]) -> None:
    """Store frames and move the headline values on. Raises ValueError on a malformed frame."""
    for incoming in frames:
        _append_one(run_id, incoming)


def _append_one(run_id: int, incoming: Incoming) -> None:
    if incoming.values.shape != (len(incoming.steps), len(incoming.names)):
        raise ValueError(f"group {incoming.group}: the matrix does not fit its steps and names")
    group = _group(run_id, incoming)
    values = np.ascontiguousarray(incoming.values.T)
    Frame.objects.create(
        group=group,
        first_row=group.rows,
        first_step=int(incoming.steps[0]),
        last_step=int(incoming.steps[-1]),
        rows=len(incoming.steps),
        data=codec.encode(codec.Block(incoming.steps, incoming.times, values)),
    )
    stats = Stats.load(group.stats, len(incoming.names))
    stats.add(incoming.steps, values)
    Group.objects.filter(pk=group.pk).update(stats=stats.dump(), rows=group.rows + len(incoming.steps))
    _write_headlines(run_id, incoming.names, stats)


def _group(run_id: int, incoming: Incoming) -> Group:
    """The newest group row of that name, or its next version where the columns have changed."""
    newest = Group.objects.filter(run_id=run_id, name=incoming.group).order_by("-version").first()
    if newest is not None and newest.names == incoming.names:
        return newest
    version = newest.version + 1 if newest is not None else 0
    return Group.objects.create(run_id=run_id, name=incoming.group, version=version, names=incoming.names)


def _write_headlines(run_id: int, names: Sequence[str], stats: Stats) -> None:
    rows = [
        Headline(
            run_id=run_id,
            key=name,
            last=finite_or_none(stats.last[at]),
            min=finite_or_none(stats.low[at]),
            max=finite_or_none(stats.high[at]),
            last_step=_step_or_none(stats.last_step[at]),
            min_step=_step_or_none(stats.low_step[at]),
            max_step=_step_or_none(stats.high_step[at]),
            count=int(stats.count[at]),
            nonfinite=int(stats.nonfinite[at]),
        )
        for at, name in enumerate(names)
        if name.startswith(_HEADLINE_PREFIXES)
    ]
    kept = ["last", "min", "max", "last_step", "min_step", "max_step", "count", "nonfinite"]
    Headline.objects.bulk_create(rows, update_conflicts=True, unique_fields=["run", "key"], update_fields=kept)


def _step_or_none(step: np.int64) -> int | None:
    return int(step) if step >= 0 else None


def snapshot(run_id: int) -> bytes:
    """The headline state of all groups as it stands, to be kept with a checkpoint."""
    groups = Group.objects.filter(run_id=run_id).values_list("pk", "stats")
    state = {str(pk): base64.b64encode(bytes(stats)).decode() for pk, stats in groups}
    return json.dumps(state).encode()


def restore(run_id: int, state: bytes | memoryview) -> None:
    """Set the headline state back to a snapshot; empty bytes mean: nothing was recorded yet."""
    kept = json.loads(bytes(state)) if state else {}
    Headline.objects.filter(run_id=run_id).delete()
    for group in Group.objects.filter(run_id=run_id):
        group.stats = base64.b64decode(kept.get(str(group.pk), ""))
        group.save(update_fields=["stats"])
        if group.stats:
            _write_headlines(run_id, group.names, Stats.load(group.stats, len(group.names)))


def truncate(run_id: int, step: int) -> None:
    """Remove every point at `step` and later: what a resumed attempt will write again."""
    for group in Group.objects.filter(run_id=run_id):
        frames = Frame.objects.filter(group=group)
        frames.filter(first_step__gte=step).delete()
        for frame in frames.filter(last_step__gte=step):
            kept = codec.decode(frame.data).between(0, step - 1)
            frame.data, frame.rows, frame.last_step = codec.encode(kept), len(kept.steps), int(kept.steps[-1])
            frame.save(update_fields=["data", "rows", "last_step"])
        unseal(group, step)
        tail = frames.aggregate(rows=Sum("rows"))["rows"] or 0
        Group.objects.filter(pk=group.pk).update(rows=group.sealed + tail, revision=F("revision") + 1)
