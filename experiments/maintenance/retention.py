"""Retention rules of projects, applied by the reconciler a few rows at a time."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Annotated, Any

from django.db.models import QuerySet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from experiments import lifecycle
from experiments.clock import db_now
from experiments.models import Group, Project, Run
from experiments.states import ENDED, State

log = logging.getLogger(__name__)
ROWS = 5000  # rows of blocks per round: about a second
GROUPS = 200  # groups of one project per round
RUNS = 20  # deleted per round; so many FILES removed
FILES = 100


def _globs(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(name and name.isprintable() for name in names):
        raise ValueError("must be names or globs separated by commas, none empty")
    return ", ".join(names)


Days = Annotated[int, Field(strict=True, ge=1, le=36_500)]


class Rules(BaseModel):
    """What a project thins and deletes, and when. Days count from a run's end; null: never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thin_days: Days | None = Field(None, description="thin series this many days after their run ended")
    thin_level: Annotated[int, Field(strict=True, ge=1, le=3)] = Field(
        1, description="1: of every 16 points the first, minimum, maximum and last stay; 2: of 256; 3: of 4,096"
    )
    thin_names: Annotated[str, Field(strict=True, min_length=1, max_length=200), AfterValidator(_globs)] = Field(
        "**/head.*", description="names or globs of the series to thin, separated by commas"
    )
    delete_days: Days | None = Field(
        None, description="delete failed and cancelled runs this many days after they ended"
    )


def rules_of(project: Project) -> Rules:
    return Rules.model_construct(**{name: getattr(project, name) for name in Rules.model_fields})


def change(project: Project, sent: dict[str, Any]) -> Rules:
    """Set the given rules and keep the others. Raises pydantic's ValidationError, which names the fields."""
    rules = Rules.model_validate({**rules_of(project).model_dump(), **sent})
    Project.objects.filter(pk=project.pk).update(**rules.model_dump())
    return rules


def sweep(budget: int = ROWS) -> int:
    """One round over all projects. Returns how many rows and files were removed; if not 0, more may be left."""
    removed = 0
    for project in Project.objects.exclude(delete_days=None):
        removed += _delete_old(project)
    removed += lifecycle.clear_files(FILES)
    if cleared := lifecycle.clear_series(budget):
        log.info("deleted %d rows of series of deleted runs", cleared)
    removed += cleared
    for project in Project.objects.exclude(thin_days=None):
        for group_id in due(project).values_list("pk", flat=True)[:GROUPS]:
            if removed >= budget:
                return removed
            removed += _thin(project, group_id, budget - removed)
    return removed


def due(project: Project) -> QuerySet[Group]:
    """Groups of series to which the rule has not been applied, of runs that ended long enough ago."""
    assert project.thin_days is not None
    ended = {"run__state__in": ENDED, "run__finished__lt": _days_ago(project.thin_days)}
    return Group.objects.filter(run__project=project, **ended).exclude(thin_done=rule(project)).order_by("pk")


def rule(project: Project) -> str:
    """The rule as text, stored with a group when applied."""
    return f"{project.thin_level} {project.thin_names}"


def _thin(project: Project, group_id: int, budget: int) -> int:
    globs = [name.strip() for name in project.thin_names.split(",")]
    rows = lifecycle.thin_group(group_id, globs, project.thin_level, rule(project), budget)
    if rows:
        log.info("project %s, group %d: thinned %d rows of blocks", project.name, group_id, rows)
    return rows


def _delete_old(project: Project) -> int:
    assert project.delete_days is not None
    old = Run.objects.filter(project=project, state__in=[State.FAILED, State.CANCELLED])
    wanted = old.filter(finished__lt=_days_ago(project.delete_days)).order_by("pk").values_list("pk", flat=True)[:RUNS]
    deleted = 0
    for run_id in wanted:
        try:
            lifecycle.delete_run(run_id, None)
            deleted += 1
        except lifecycle.NotAllowed:
            pass  # it was retried meanwhile
    return deleted


def _days_ago(days: int) -> datetime:
    return db_now() - timedelta(days=days)
