"""What a worker does with a run that it holds. Every write carries the fence: that of an outdated holder touches no row
and raises LeaseLost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from experiments import store
from experiments.clock import db_in, db_now
from experiments.models import Artifact, Attempt, Group, LogChunk, Run, Worker
from experiments.queue.order import next_run
from experiments.spec.identity import Identity
from experiments.states import HELD, Actor, Desired, Reason, State

from .checkpoints import truncate
from .claims import Claim, Held
from .moves import LeaseLost, event, finish, move, requeue, row_of


def claim(pools: Sequence[str], worker: Worker) -> Claim | None:
    """Claim the next queued run of the pools, or None. Truncates it to its checkpoint."""
    while True:
        with transaction.atomic():
            run = next_run(pools)
            if run is None:
                return None
            claimed = _try_claim(run, worker)
            if claimed is not None:
                return claimed


def _try_claim(run: Run, worker: Worker) -> Claim | None:
    checkpoint = run.checkpoints.filter(step=run.checkpoint_step).first() if run.checkpoint_step else None
    start = checkpoint.step if checkpoint else 0
    claimed = Run.objects.filter(pk=run.pk, state=State.QUEUED, fence=run.fence, desired=Desired.RUN).update(
        state=State.CLAIMED,
        fence=F("fence") + 1,
        lease_until=db_in(settings.ATTN_LEASE_S),
        worker=worker,
        committed_step=start,
        checkpoint_step=start,
        reason="",
        detail="",
        next_at=None,
    )
    if not claimed:
        return None
    surplus = truncate(run, start, checkpoint) if run.committed_step > start else ()
    held = Held(run.pk, run.fence + 1)
    Attempt.objects.create(run=run, fence=held.fence, worker=worker, host=worker.host, start_step=start, claimed=Now())
    message = f"claimed by {worker.name}" + (f", resuming at step {start}" if start else "")
    event(run, Actor.WORKER, "claimed", who=worker.name, to=State.CLAIMED, fence=held.fence, message=message)
    elapsed = (db_now() - run.started).total_seconds() if run.started else 0.0
    parent = Run.objects.filter(pk=run.parent_id).values_list("spec", flat=True).first() if run.parent_id else None
    return Claim(held, run.spec, start, checkpoint, elapsed, surplus, parent, _spent(run))


def _spent(run: Run) -> float:
    queued = (
        run.events.filter(actor=Actor.USER, to_state=State.QUEUED).order_by("-id").values_list("at", flat=True).first()
    )
    ended_attempts = run.attempts.filter(ended__isnull=False)
    times = (ended_attempts.filter(claimed__gte=queued) if queued else ended_attempts).values_list("claimed", "ended")
    return sum((ended - claimed).total_seconds() for claimed, ended in times if ended)


def start(held: Held, *, pid: int, device: str, info: dict[str, Any]) -> None:
    """The trainer is ready and begins: claimed → running."""
    with transaction.atomic():
        run = row_of(held, State.CLAIMED)
        move(run, State.RUNNING, Actor.SUPERVISOR, message=f"training on {device}")
        Run.objects.filter(pk=run.pk, started=None).update(started=Now())
        attempt = Attempt.objects.filter(run=run, fence=held.fence)
        attempt.update(pid=pid, device=device, info=info, started=Now())
        reported = Identity.reported({"device": device, **info})
        if _goes_on(run, attempt.values_list("start_step", flat=True).get()):
            reported = reported.after(run.identity)
        Run.objects.filter(pk=run.pk).update(**reported.fields)


def _goes_on(run: Run, start: int) -> bool:
    """Whether this attempt continues from training of the same run."""
    return start > (run.parent_step or 0)


def renew(held: Held) -> Desired:
    """Extend the lease. Returns what the user wants: run or cancel."""
    mine = Run.objects.filter(pk=held.run_id, fence=held.fence, state__in=HELD)
    if not mine.update(lease_until=db_in(settings.ATTN_LEASE_S)):
        raise LeaseLost(f"run {held.run_id}: fence {held.fence} is outdated")
    return Desired(mine.values_list("desired", flat=True).get())


def commit(held: Held, lo: int, hi: int, frames: Sequence[store.Incoming]) -> None:
    """Store the points of steps [lo, hi) and the progress to `hi` together, or nothing.

    Calling it again after a lost reply is safe: if the progress is already at `hi`, nothing is stored twice.
    """
    if hi <= lo or any(frame.steps[0] < lo or frame.steps[-1] >= hi for frame in frames):
        raise ValueError(f"a flush of steps [{lo}, {hi}) contains points outside of that range")
    with transaction.atomic():
        if sum(frame.values.size for frame in frames) >= store.LARGE_WRITE:
            store.throttle_write()
        mine = Run.objects.filter(pk=held.run_id, fence=held.fence, state__in=(State.RUNNING, State.STOPPING))
        moved = mine.filter(committed_step=lo).update(committed_step=hi, lease_until=db_in(settings.ATTN_LEASE_S))
        if moved:
            store.append(held.run_id, frames)
            return
        committed = mine.values_list("committed_step", flat=True).first()
    if committed is None:
        raise LeaseLost(f"run {held.run_id}: fence {held.fence} is outdated")
    if committed != hi:
        raise ValueError(f"flush [{lo}, {hi}) does not follow the committed step {committed}")


def add_artifact(
    held: Held, *, kind: str, name: str, step: int | None, media_type: str, path: str, size: int, meta: dict[str, Any]
) -> None:
    """Record a stored file of the run; it replaces one of the same kind, name and step."""
    with transaction.atomic():
        run = row_of(held, *HELD)
        Artifact.objects.update_or_create(
            run=run,
            kind=kind,
            name=name,
            step=step,
            defaults={"fence": held.fence, "media_type": media_type, "path": path, "size": size, "meta": meta},
        )


def add_log(held: Held, text: str) -> None:
    """Append lines to the run's log."""
    with transaction.atomic():
        LogChunk.objects.create(run=row_of(held, *HELD), fence=held.fence, text=text.replace("\x00", "�"))


def warn(held: Held, kind: str, message: str, *, again_after: str = "") -> None:
    """Record a warning in a run's history. A second call of the same kind records nothing, unless an event of kind
    `again_after` came between."""
    with transaction.atomic():
        run = row_of(held, *HELD)
        last = run.events.filter(kind__in=[kind, again_after]).order_by("pk").last()
        if last is None or last.kind != kind:
            event(run, Actor.SUPERVISOR, kind, message=message)


def usage(run_id: int) -> tuple[set[tuple[str, str]], dict[tuple[str, str, int | None], int]]:
    """What a run has stored: its series as (group, name), and the bytes of its files by (kind, name, step)."""
    groups = Group.objects.filter(run_id=run_id, rows__gt=0).values_list("name", "names")
    files = Artifact.objects.filter(run_id=run_id).values_list("kind", "name", "step", "size")
    return {(group, name) for group, names in groups for name in names}, {(k, n, s): size for k, n, s, size in files}


def stopping(held: Held, *, why: str) -> None:
    """The trainer was told to stop: claimed or running → stopping. A second call changes nothing."""
    with transaction.atomic():
        run = row_of(held, *HELD)
        if run.state != State.STOPPING:
            move(run, State.STOPPING, Actor.SUPERVISOR, message=why)


def succeed(held: Held) -> None:
    """All steps are committed: → succeeded."""
    with transaction.atomic():
        run = row_of(held, State.RUNNING, State.STOPPING)
        if run.committed_step != run.steps:
            raise ValueError(f"run {run.pk} is not done: {run.committed_step} of {run.steps} steps")
        finish(run, State.SUCCEEDED, Actor.SUPERVISOR, Reason.NONE, "", "all steps done")


def fail(held: Held, reason: Reason, detail: str) -> None:
    """A failure that a retry would repeat: → failed at once."""
    with transaction.atomic():
        run = row_of(held, *HELD)
        finish(
            run, State.FAILED, Actor.SUPERVISOR, reason, detail, detail.strip().splitlines()[0] if detail else reason
        )


def cancelled(held: Held) -> None:
    """The trainer stopped because the user cancelled: → stopping → cancelled."""
    stopping(held, why="cancellation requested")
    with transaction.atomic():
        run = row_of(held, State.STOPPING)
        finish(run, State.CANCELLED, Actor.SUPERVISOR, Reason.CANCELLED, "", f"stopped at step {run.committed_step}")


def release(held: Held) -> None:
    """Preempted: → queued. It counts as a crash only if the attempt completed no step."""
    stopping(held, why="the worker is shutting down")
    with transaction.atomic():
        run = row_of(held, State.STOPPING)
        began = Attempt.objects.get(run=run, fence=held.fence).start_step
        idle = run.committed_step <= began
        message = "preempted before its first step" if idle else "preempted"
        requeue(run, Actor.SUPERVISOR, Reason.PREEMPTED, message, "", counts=idle)


def crash(held: Held, detail: str, reason: Reason = Reason.CRASHED, why: str = "the trainer died") -> None:
    """The trainer died: → stopping → queued with back-off, failed as poisoned, or cancelled if that was asked."""
    stopping(held, why=why)
    with transaction.atomic():
        run = row_of(held, State.STOPPING)
        requeue(run, Actor.SUPERVISOR, reason, why, detail, counts=True)
