"""Actions of users: submit, cancel, retry. They write `desired` without a fence; the holder of the lease obeys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from experiments.models import Event, Experiment, Param, PendingDeletion, Project, Run
from experiments.queue.doorbell import ring_on_commit
from experiments.queue.lanes import put_in_lanes
from experiments.spec import flatten, resolved
from experiments.states import ENDED, Actor, Desired, Reason, State, sources
from experiments.submissions.submission import Plan

from .moves import NotAllowed, event, locked, move
from .thinning import is_thinned
from .workers import idle_slots


def submit(
    plan: Plan, *, project: Project, user: AbstractBaseUser | None, idempotency_key: str | None = None
) -> Experiment:
    """Store a valid plan and ring. A repeated idempotency key returns the first experiment."""
    try:
        with transaction.atomic():
            return _store(plan, project, user, idempotency_key)
    except IntegrityError:
        earlier = Experiment.objects.filter(created_by_id=_pk(user), idempotency_key=idempotency_key).first()
        if idempotency_key is None or earlier is None:
            raise
        return earlier


def _store(plan: Plan, project: Project, user: AbstractBaseUser | None, key: str | None) -> Experiment:
    submission = plan.submission
    experiment = Experiment.objects.create(
        project=project,
        name=submission.name,
        preset=submission.preset or "",
        spec=resolved(plan.spec),
        matrix=plan.matrix,
        seeds=plan.seeds,
        tags=submission.tags,
        notes=submission.notes,
        priority=submission.priority,
        pool=plan.pool,
        spec_hash=plan.spec_hash,
        idempotency_key=key,
        request_digest=plan.request_digest(project.pk),
        created_by_id=_pk(user),
    )
    runs = [
        Run(
            experiment=experiment,
            project=project,
            index=planned.index,
            seed=planned.seed,
            params=planned.params,
            spec=resolved(planned.spec),
            spec_hash=planned.spec_hash,
            steps=planned.spec.train.steps,
            pool=planned.spec.resources.pool,
            priority=submission.priority,
        )
        for planned in plan.runs
    ]
    add_runs(runs, user)
    return experiment


def add_runs(rows: Sequence[Run], user: AbstractBaseUser | None, *, message: str = "") -> list[Run]:
    """Store queued runs with their parameters and events, in the caller's transaction, and ring when it commits."""
    put_in_lanes(rows, _pk(user) or 0)
    runs = Run.objects.bulk_create(rows)
    Param.objects.bulk_create([row for run in runs for row in _params(run)], batch_size=2000)
    submitted = {"actor": Actor.USER, "who": name_of(user), "kind": "submitted", "to_state": State.QUEUED}
    Event.objects.bulk_create(Event(run=run, at=Now(), message=message, **submitted) for run in runs)
    for pool in sorted({run.pool for run in runs}):
        ring_on_commit(pool, [run.pk for run in runs if run.pool == pool], idle_slots(pool))
    return runs


def _params(run: Run) -> list[Param]:
    rows = []
    for path, value in flatten(run.spec):
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        rows.append(Param(run=run, key=path, text=param_text(value), number=number))
    return rows


def param_text(value: Any) -> str:
    """A leaf of a spec as the text that filters compare with."""
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return ",".join(param_text(element) for element in value)
    return str(value)[:200]


def request_cancel(run_id: int, user: AbstractBaseUser | None) -> Run:
    """Cancel a queued run at once; ask the holder to stop a held one. Raises NotAllowed on an ended run."""
    with transaction.atomic():
        run = locked(run_id)
        if run.state in ENDED:
            raise NotAllowed(f"run {run_id} has already ended ({run.state})")
        Run.objects.filter(pk=run_id).update(desired=Desired.CANCEL)
        if run.state == State.QUEUED:
            ended = {"reason": Reason.CANCELLED, "finished": Now()}
            move(run, State.CANCELLED, Actor.USER, who=name_of(user), message="cancelled while queued", **ended)
        elif run.desired != Desired.CANCEL:
            message = "cancellation requested: the worker stops the run at its next step"
            event(run, Actor.USER, "cancel asked", who=name_of(user), message=message)
        return Run.objects.get(pk=run_id)


def retry(run_id: int, user: AbstractBaseUser | None, *, from_start: bool = False) -> Run:
    """Queue a failed or cancelled run again, from its newest checkpoint. `from_start` deletes its checkpoints and, once
    a worker claims it, its series. Raises NotAllowed on any other run."""
    with transaction.atomic():
        run = locked(run_id)
        if run.state not in sources(State.QUEUED, Actor.USER):
            raise NotAllowed(f"only failed and cancelled runs can be retried; run {run_id} is {run.state}")
        if is_thinned(run):
            raise NotAllowed(
                f"the series of run {run_id} were thinned, so it cannot continue; fork it or submit it again"
            )
        fresh = {
            "desired": Desired.RUN,
            "crash_count": 0,
            "reason": "",
            "detail": "",
            "finished": None,
            "next_at": None,
        }
        if from_start:
            fresh |= _begin_again(run)
        message = f"retry from step {fresh.get('checkpoint_step', run.checkpoint_step)}"
        move(run, State.QUEUED, Actor.USER, who=name_of(user), message=message, **fresh)
        ring_on_commit(run.pool, [run_id], 1)
        return Run.objects.get(pk=run_id)


def _begin_again(run: Run) -> dict[str, Any]:
    """Delete the run's own checkpoints; a fork keeps its parent's. Returns fields of the move."""
    own = run.checkpoints.exclude(fence=0)
    start = run.parent_step or 0
    if start and not run.checkpoints.filter(fence=0).exists():
        raise NotAllowed(f"the checkpoint that run {run.pk} began with was deleted; fork the parent again")
    PendingDeletion.objects.schedule(own.values_list("path", flat=True))
    own.delete()
    return {"checkpoint_step": start, "started": None}


def _pk(user: AbstractBaseUser | None) -> int | None:
    return user.pk if user is not None else None


def name_of(user: AbstractBaseUser | None) -> str:
    return user.get_username() if user is not None else "system"
