"""Lanes are created with their first run, and charged when an attempt ends."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from experiments.clock import db_now
from experiments.models import Attempt, Lane, Run
from experiments.queue.fair_share import decayed


def put_in_lanes(rows: Sequence[Run], owner: int) -> None:
    """Set the lane of runs that are about to be stored; `owner` is the submitting user, 0 for none."""
    lanes: dict[tuple[str, int], Lane] = {}
    for run in rows:
        key = (run.pool, run.project_id)
        if key not in lanes:
            lanes[key], _ = Lane.objects.get_or_create(pool=run.pool, project_id=run.project_id, owner=owner)
        run.lane = lanes[key]


def charge(run: Run) -> None:
    """Add the slot seconds of the run's open attempt to its lane. Call before the attempt ends, in its transaction."""
    claimed = Attempt.objects.filter(run=run, ended=None).values_list("claimed", flat=True).first()
    if claimed is None or run.lane_id is None:
        return
    lane, now = Lane.objects.select_for_update().get(pk=run.lane_id), db_now()
    age = (now - lane.used_at).total_seconds() if lane.used_at else 0.0
    used = decayed(lane.used, age, settings.ATTN_SHARE_HALF_LIFE_S) + (now - claimed).total_seconds()
    Lane.objects.filter(pk=lane.pk).update(used=used, used_at=now)
