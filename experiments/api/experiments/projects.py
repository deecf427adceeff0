"""Projects and their retention rules."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from pydantic import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.base import View
from experiments.api.http.paging import Key, Page, paginate
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Paged, Query
from experiments.maintenance import retention
from experiments.models import Project


class ProjectRow(retention.Rules):
    """A project with its retention rules."""

    name: str


class ProjectPage(Page):
    results: list[ProjectRow]


class ProjectList(View[Paged]):
    """The projects that you may see."""

    query = Paged
    answers = {"GET": (200, ProjectPage)}

    def get(self, request: Request) -> Response:
        rows = Project.objects.visible_to(request.user)
        page, links = paginate(rows, [Key("pk")], self.params, request)
        return Response({"results": [_row(project) for project in page], **links})


class ProjectDetail(View[Query]):
    """One project with its retention rules. Its owners may PATCH them; rules that are not sent stay. Rules are applied
    in the background; they delete data for good, and each run's events record it."""

    body = retention.Rules
    answers = {"GET": (200, ProjectRow), "PATCH": (200, ProjectRow)}

    def get(self, request: Request, name: str) -> Response:
        return Response(_row(_visible(request, name)))

    def patch(self, request: Request, name: str) -> Response:
        project = _visible(request, name)
        if not Project.objects.owned_by(request.user).filter(pk=project.pk).exists():
            raise PermissionDenied(f"only owners of project '{name}' may change its rules")
        try:
            retention.change(project, self.sent)
        except ValidationError as error:
            raise Invalid.from_pydantic(error) from None
        return Response(_row(Project.objects.get(pk=project.pk)))


def _visible(request: Request, name: str) -> Project:
    project = Project.objects.visible_to(request.user).filter(name=name).first() if "\0" not in name else None
    if project is None:
        raise Http404(f"there is no project '{name}', or you may not see it")
    return project


def _row(project: Project) -> dict[str, Any]:
    return {"name": project.name, **retention.rules_of(project).model_dump()}
