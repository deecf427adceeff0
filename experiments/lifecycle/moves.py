"""How a move is made: filter on id, old state and fence; update; require exactly one row; write the event; all in the
caller's transaction. `experiments.states` lists the legal moves; nothing else writes a state.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from experiments.clock import db_in
from experiments.models import Attempt, Event, Run
from experiments.queue.doorbell import ring_on_commit
from experiments.queue.lanes import charge
from experiments.states import Actor, Desired, Reason, State, sources

from .claims import Held


class LeaseLost(Exception):
    """The fence is outdated: another worker may hold the run. Kill the trainer and write nothing more."""


class NotAllowed(Exception):
    """The run's state does not allow the action."""


def row_of(held: Held, *states: State) -> Run:
    """The held run, locked where the database can. Raises LeaseLost if its fence or state has changed."""
    run = Run.objects.select_for_update().filter(pk=held.run_id, fence=held.fence, state__in=states).first()
    if run is None:
        raise LeaseLost(f"run {held.run_id}: fence {held.fence} is outdated")
    return run


def locked(run_id: int) -> Run:
    return Run.objects.select_for_update().get(pk=run_id)


def move(run: Run, to: State, actor: Actor, *, message: str, who: str = "", **fields: Any) -> None:
    """One legal move, guarded by state and fence, with its event. Raises LeaseLost if the row has changed."""
    if run.state not in sources(to, actor):
        raise NotAllowed(f"{actor} may not move run {run.pk} from {run.state} to {to}")
    moved = Run.objects.filter(pk=run.pk, state=run.state, fence=run.fence).update(state=to, **fields)
    if moved != 1:
        raise LeaseLost(f"run {run.pk} is no longer {run.state} with fence {run.fence}")
    event(run, actor, to, who=who, to=to, message=message)
    run.state = to


def event(
    run: Run, actor: Actor, kind: str, *, who: str = "", to: str = "", fence: int | None = None, message: str = ""
) -> None:
    by = who or (run.worker.name if actor == Actor.SUPERVISOR and run.worker else "")
    Event.objects.create(
        run=run,
        at=Now(),
        actor=actor,
        who=by,
        kind=kind,
        from_state=run.state if to else "",
        to_state=to,
        fence=run.fence if fence is None else fence,
        step=run.committed_step,
        message=message,
    )


def finish(run: Run, to: State, actor: Actor, reason: Reason, detail: str, message: str, **fields: Any) -> None:
    _end_attempt(run, reason or to)
    fields |= {"reason": reason, "detail": detail, "finished": Now(), "lease_until": None, "worker": None}
    move(run, to, actor, message=message, **fields)


def requeue(run: Run, actor: Actor, reason: Reason, message: str, detail: str, *, counts: bool) -> None:
    """Back to the queue, unless the user cancelled or the crash limit is reached."""
    crashes = run.crash_count + 1 if counts else run.crash_count
    if run.desired == Desired.CANCEL:
        finish(run, State.CANCELLED, actor, Reason.CANCELLED, detail, f"{message}; the user had cancelled")
    elif counts and crashes >= settings.ATTN_CRASH_LIMIT:
        text = f"{crashes} crashes in a row with no new checkpoint; the last: {message}\n{detail}".strip()
        finish(run, State.FAILED, actor, Reason.POISONED, text, text.splitlines()[0], crash_count=crashes)
    else:
        _end_attempt(run, reason)
        wait = settings.ATTN_BACKOFF_S * 2 ** (crashes - 1) if counts else 0
        fields: dict[str, Any] = {"crash_count": crashes, "next_at": db_in(wait) if wait else None}
        fields |= {"reason": reason, "detail": detail, "lease_until": None, "worker": None}
        move(run, State.QUEUED, actor, message=message, **fields)
        if not wait:
            ring_on_commit(run.pool, [run.pk], 1)


def _end_attempt(run: Run, outcome: str) -> None:
    charge(run)
    attempts = Attempt.objects.filter(run=run, ended=None)
    attempts.update(ended=Now(), end_step=run.committed_step, outcome=outcome)
