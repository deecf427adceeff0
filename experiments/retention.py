"""Retention: what each project's rules let go of, carried out by the reconciler a little at a time."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db.models import QuerySet

from . import lifecycle
from .clock import db_now
from .models import Group, Project
from .states import ENDED

log = logging.getLogger(__name__)
ROWS = 5000  # rows of blocks in one round: about a second of work
GROUPS = 200  # groups looked at in one round of one project


def sweep(budget: int = ROWS) -> int:
    """One round over all projects. Returns how many rows went; anything but 0 says that more may be left."""
    dropped = 0
    for project in Project.objects.exclude(thin_days=None):
        for group_id in due(project).values_list("pk", flat=True)[:GROUPS]:
            if dropped >= budget:
                return dropped
            dropped += _thin(project, group_id, budget - dropped)
    return dropped


def due(project: Project) -> QuerySet[Group]:
    """Groups of series whose run ended long enough ago, and on which the rule has not been carried out."""
    assert project.thin_days is not None
    ended = {"run__state__in": ENDED, "run__finished__lt": db_now() - timedelta(days=project.thin_days)}
    return Group.objects.filter(run__project=project, **ended).exclude(thin_done=rule(project)).order_by("pk")


def rule(project: Project) -> str:
    """The rule in one line, as a group remembers it."""
    return f"{project.thin_level} {project.thin_names}"


def _thin(project: Project, group_id: int, budget: int) -> int:
    globs = [name.strip() for name in project.thin_names.split(",")]
    rows = lifecycle.thin_group(group_id, globs, project.thin_level, rule(project), budget)
    if rows:
        log.info("project %s, group %d: thinned %d rows of blocks", project.name, group_id, rows)
    return rows
