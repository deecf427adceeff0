"""Writing series. Everything here runs inside the caller's fenced transaction."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from django.db.models import F, Sum
from numpy.typing import NDArray

from experiments.models import Frame, Group, Headline
from experiments.store.blocks import codec
from experiments.store.headline import HeadlineValues, Stats

from .seal import unseal

# Series that the runs table can show, sort and filter by; others are in the groups' stats only.
_HEADLINE_PREFIXES = ("loss/", "eval/", "test/", "attn/", "lr", "grad_norm/total", "grad_norm/clip_scale", "time/")
_HEADLINE = [field.name for field in fields(HeadlineValues)]


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
    """Store frames and update the headline values. Raises ValueError on a malformed frame."""
    for incoming in frames:
        _append_frame(run_id, incoming)


def _append_frame(run_id: int, incoming: Incoming) -> None:
    if incoming.values.shape != (len(incoming.steps), len(incoming.names)):
        raise ValueError(f"group {incoming.group}: the matrix does not match its steps and names")
    group = _group(run_id, incoming)
    values = np.ascontiguousarray(incoming.values.T)
    Frame.objects.create(
        group=group,
        first_row=group.rows,
        first_step=int(incoming.steps[0]),
        last_step=int(incoming.steps[-1]),
        rows=len(incoming.steps),
        data=codec.encode(codec.Table(incoming.steps, incoming.times, values)),
    )
    stats = Stats.load(group.stats, len(incoming.names))
    stats.add(incoming.steps, values)
    Group.objects.filter(pk=group.pk).update(stats=stats.dump(), rows=group.rows + len(incoming.steps))
    _write_headlines(run_id, incoming.names, stats)


def _group(run_id: int, incoming: Incoming) -> Group:
    """The newest group row of that name, or its next version if the columns have changed."""
    newest = Group.objects.filter(run_id=run_id, name=incoming.group).order_by("-version").first()
    if newest is not None and newest.names == incoming.names:
        return newest
    version = newest.version + 1 if newest is not None else 0
    return Group.objects.create(run_id=run_id, name=incoming.group, version=version, names=incoming.names)


def _write_headlines(run_id: int, names: Sequence[str], stats: Stats) -> None:
    rows = [
        Headline(run_id=run_id, key=name, **asdict(stats.headline(column)))
        for column, name in enumerate(names)
        if name.startswith(_HEADLINE_PREFIXES)
    ]
    Headline.objects.bulk_create(rows, update_conflicts=True, unique_fields=["run", "key"], update_fields=_HEADLINE)


def snapshot(run_id: int) -> bytes:
    """The current headline state of all groups, to be stored with a checkpoint."""
    groups = Group.objects.filter(run_id=run_id).values_list("pk", "stats")
    state = {str(pk): base64.b64encode(bytes(stats)).decode() for pk, stats in groups}
    return json.dumps(state).encode()


def restore(run_id: int, state: bytes | memoryview) -> None:
    """Restore the headline state from a snapshot; empty bytes mean that nothing was recorded yet."""
    kept = json.loads(bytes(state)) if state else {}
    Headline.objects.filter(run_id=run_id).delete()
    for group in Group.objects.filter(run_id=run_id):
        group.stats = base64.b64decode(kept.get(str(group.pk), ""))
        group.save(update_fields=["stats"])
        if group.stats:
            _write_headlines(run_id, group.names, Stats.load(group.stats, len(group.names)))


def truncate(run_id: int, step: int) -> None:
    """Delete every point at `step` and later: a resumed attempt records them again."""
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
