"""Forks: runs that begin at another run's checkpoint."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from experiments.models import Checkpoint, Run
from experiments.states import Actor
from experiments.submissions.submission import Plan

from .moves import NotAllowed, event
from .user_actions import name_of, submit


def fork(parent: Run, step: int, plan: Plan, user: AbstractBaseUser | None) -> Run:
    """Submit the plan's one run so that it begins at the parent's checkpoint of `step` completed steps.

    The checkpoint's row is locked, so that its file cannot be deleted meanwhile. Raises NotAllowed if there is none.
    """
    with transaction.atomic():
        checkpoint = Checkpoint.objects.select_for_update().filter(run=parent, step=step).first()
        if checkpoint is None:
            raise NotAllowed(f"run {parent.pk} has no checkpoint at step {step} any more")
        run = submit(plan, project=parent.project, user=user).runs.get()
        same = {name: getattr(checkpoint, name) for name in ("step", "path", "sha256", "size")}
        Checkpoint.objects.create(run=run, fence=0, **same)
        begun = {"committed_step": step, "checkpoint_step": step}
        Run.objects.filter(pk=run.pk).update(parent=parent, parent_step=step, **begun)
        who = name_of(user)
        event(run, Actor.USER, "forked", who=who, message=f"begins with run {parent.pk} at step {step}")
        event(parent, Actor.USER, "forked", who=who, message=f"run {run.pk} begins with its checkpoint at step {step}")
    run.refresh_from_db()
    return run
