"""Permissions: 404 for what the caller may not see, 403 for what the caller may see but not change."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework.request import Request

from experiments.models import Experiment, Project, Run
from experiments.models.runs import RunQuerySet

from .problems import Invalid
from .query import MAX_ID


def person(request: Request) -> AbstractBaseUser:
    """The caller, who is logged in: every view that changes something requires it."""
    assert isinstance(request.user, AbstractBaseUser)
    return request.user


def visible_run(request: Request, run_id: int, *, defer: Iterable[str] = ()) -> Run:
    """A run that the caller may see; `defer` leaves out columns that the answer does not need."""
    rows = Run.objects.visible_to(request.user).select_related("project", "experiment", "worker")
    run = rows.defer("experiment__spec", *defer).filter(pk=_sane(run_id)).first()
    if run is None:
        raise Http404(f"there is no run {run_id}, or you may not see it")
    return run


def editable_run(request: Request, run_id: int) -> Run:
    """A run that the caller may change."""
    run = visible_run(request, run_id, defer=["spec"])
    _require_edit(request, run.project_id)
    return run


def visible_runs(request: Request, run_ids: Iterable[int]) -> RunQuerySet:
    """All requested runs, or 404 that names the missing ones."""
    wanted = set(run_ids)
    rows = Run.objects.visible_to(request.user).filter(pk__in=wanted)
    missing = wanted - set(rows.values_list("pk", flat=True))
    if missing:
        names = ", ".join(map(str, sorted(missing)))
        raise Http404(f"there is no run {names}, or you may not see it")
    return rows


def visible_experiment(request: Request, experiment_id: int) -> Experiment:
    """An experiment that the caller may see."""
    rows = Experiment.objects.visible_to(request.user).select_related("project", "created_by")
    experiment = rows.filter(pk=_sane(experiment_id)).first()
    if experiment is None:
        raise Http404(f"there is no experiment {experiment_id}, or you may not see it")
    return experiment


def editable_experiment(request: Request, experiment_id: int) -> Experiment:
    """An experiment that the caller may change."""
    experiment = visible_experiment(request, experiment_id)
    _require_edit(request, experiment.project_id)
    return experiment


def project_for(user: AbstractBaseUser, name: str | None) -> Project:
    """The project of a submission: the one that it names, else the only one, or `default`, among those that the user
    may submit to."""
    if name is not None:
        return _named_project(user, name)
    editable = Project.objects.editable_by(user)
    mine = list(editable.filter(memberships__user_id=user.pk)) or list(editable)
    chosen = mine if len(mine) == 1 else [project for project in mine if project.name == "default"]
    if not chosen:
        names = ", ".join(project.name for project in mine[:20])
        raise Invalid.at("project", f"set one of: {names}" if mine else "there is no project that you may submit to")
    return chosen[0]


def _named_project(user: AbstractBaseUser, name: str) -> Project:
    project = Project.objects.visible_to(user).filter(name=name).first()
    if project is None:
        raise Invalid.at("project", f"there is no project '{name}', or you may not see it")
    if not Project.objects.editable_by(user).filter(pk=project.pk).exists():
        raise PermissionDenied(f"you are a viewer of project '{name}'; editors and owners may submit to it")
    return project


def _require_edit(request: Request, project_id: int) -> None:
    if not Project.objects.editable_by(request.user).filter(pk=project_id).exists():
        raise PermissionDenied("you are a viewer of this project; editors and owners may change it")


def _sane(row_id: int) -> int:
    return row_id if row_id <= MAX_ID else 0
