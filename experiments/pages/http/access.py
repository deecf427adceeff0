"""What the signed-in user may see and edit; anything else answers 404."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from experiments.models import Experiment, Project, Run


def run_or_404(request: HttpRequest, pk: int) -> Run:
    runs = Run.objects.visible_to(request.user).select_related("experiment", "project", "worker")
    return get_object_or_404(runs, pk=pk)


def experiment_or_404(request: HttpRequest, pk: int) -> Experiment:
    experiments = Experiment.objects.visible_to(request.user).select_related("project", "created_by")
    return get_object_or_404(experiments, pk=pk)


def may_edit(request: HttpRequest, project: Project) -> bool:
    return Project.objects.editable_by(request.user).filter(pk=project.pk).exists()


def require_editor(request: HttpRequest, project: Project) -> None:
    if not may_edit(request, project):
        raise PermissionDenied("This needs the role of an editor. Viewers of a project may only look.")


def editable_projects(request: HttpRequest) -> QuerySet[Project]:
    return Project.objects.editable_by(request.user).distinct()
