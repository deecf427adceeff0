"""Checkpoints: recorded once they are durable; the newest two and the best are kept; a damaged one is skipped.

A fork begins with a row that names its parent's file, so a file may have several rows. It is surplus only when its last
row is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.db import transaction

from experiments import store
from experiments.models import Artifact, Attempt, Checkpoint, Group, Headline, Run
from experiments.states import Actor, State

from .claims import Claim, Held
from .moves import NotAllowed, event, row_of

KEPT_NEWEST = 2


def publish_checkpoint(held: Held, *, step: int, path: str, sha256: str, size: int) -> list[str]:
    """Record a durable checkpoint and reset the crash count. Returns names of files that became surplus."""
    with transaction.atomic():
        run = row_of(held, State.RUNNING, State.STOPPING)
        named = Run.objects.filter(pk=run.pk, fence=held.fence, committed_step=step)
        if not named.update(checkpoint_step=step, crash_count=0):
            raise ValueError(f"checkpoint at {step} does not match the committed step {run.committed_step}")
        facts: dict[str, Any] = {"path": path, "sha256": sha256, "size": size}
        facts |= {"stats": store.snapshot(run.pk), "score": _score(run, step)}
        Checkpoint.objects.get_or_create(run=run, fence=held.fence, step=step, defaults=facts)
        return [name for name in _forget(_surplus(run)) if name != path]


def _score(run: Run, step: int) -> float | None:
    """The first metric of the evaluation at this step, higher is better; None if there was none."""
    series = Group.objects.filter(run=run, name="eval").order_by("-version").values_list("names", flat=True).first()
    if not series:
        return None
    key = series[0]
    value = Headline.objects.filter(run=run, key=key, last_step=step - 1).values_list("last", flat=True).first()
    if value is None or not math.isfinite(value):
        return None
    return -value if "loss" in key else value


def _surplus(run: Run) -> list[Checkpoint]:
    """All but the newest two and the best."""
    newest_first = list(Checkpoint.objects.filter(run=run).defer("stats").order_by("-step", "-id"))
    scored = [checkpoint for checkpoint in newest_first if checkpoint.score is not None]
    best = max(scored, key=lambda checkpoint: (checkpoint.score or 0.0, checkpoint.step), default=None)
    return [checkpoint for checkpoint in newest_first[KEPT_NEWEST:] if checkpoint != best]


def _forget(checkpoints: Iterable[Checkpoint]) -> list[str]:
    """Delete the rows. Returns the files that no other row names."""
    paths = []
    for checkpoint in checkpoints:
        checkpoint.delete()
        if not Checkpoint.objects.filter(path=checkpoint.path).exists():
            paths.append(checkpoint.path)
    return paths


def truncate(run: Run, start: int, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """Delete what was recorded after the checkpoint; it is recorded again. Returns the surplus files."""
    store.truncate(run.pk, start)
    store.restore(run.pk, checkpoint.stats if checkpoint else b"")
    pictures = Artifact.objects.filter(run=run, step__gte=start)
    paths = tuple(pictures.values_list("path", flat=True))
    pictures.delete()
    return paths


def fall_back(claim: Claim, why: str) -> Claim:
    """The claimed checkpoint is damaged: begin at the one before it, or at step 0.

    Raises NotAllowed if it is the one that a fork begins with. Calling it again is safe.
    """
    damaged = claim.checkpoint
    assert damaged is not None, "the claim has a checkpoint"
    with transaction.atomic():
        run = row_of(claim.held, State.CLAIMED, State.STOPPING)
        older = run.checkpoints.filter(step__lte=damaged.step).exclude(pk=damaged.pk).first()
        if older is None and run.parent_step is not None:
            raise NotAllowed(f"{why}; it is the one this fork begins with")
        start = older.step if older else 0
        surplus = _forget(run.checkpoints.filter(pk=damaged.pk))
        Run.objects.filter(pk=run.pk, fence=run.fence).update(committed_step=start, checkpoint_step=start)
        Attempt.objects.filter(run=run, fence=run.fence).update(start_step=start)
        files = (*claim.surplus, *truncate(run, start, older), *surplus)
        run.committed_step = start
        event(run, Actor.SUPERVISOR, "fell back", message=f"{why}; resuming at step {start} instead of {damaged.step}")
    return replace(claim, start_step=start, checkpoint=older, surplus=files)
