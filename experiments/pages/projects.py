"""Projects and what they let go of: a list, and a form for their owners."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe
from pydantic import ValidationError

from experiments.maintenance import retention
from experiments.models import Project

_NUMBERS = ("thin_days", "thin_level", "delete_days")


@require_safe
def project_list(request: HttpRequest) -> HttpResponse:
    projects = Project.objects.visible_to(request.user).distinct()
    return render(request, "pages/projects/list.html", {"projects": projects})


@require_http_methods(["GET", "POST"])
def project_page(request: HttpRequest, name: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user).distinct(), name=name)
    owner = Project.objects.owned_by(request.user).filter(pk=project.pk).exists()
    if request.method == "GET":
        return render(
            request, "pages/projects/page.html", _context(project, owner, retention.rules_of(project).model_dump(), {})
        )
    if not owner:
        raise PermissionDenied("Only owners of a project may change its rules.")
    try:
        retention.change(
            project, {field: _read(field, request.POST.get(field, "")) for field in retention.Rules.model_fields}
        )
    except ValidationError as error:
        wrong = {str(item["loc"][0]): item["msg"].removeprefix("Value error, ") for item in error.errors()}
        return render(request, "pages/projects/page.html", _context(project, owner, request.POST, wrong), status=400)
    messages.success(request, "The rules are kept. They are carried out in the background.")
    return redirect("project", project.name)


def _read(field: str, text: str) -> Any:
    """A form sends text: an empty number is never, one that is none stays text and is refused."""
    text = text.strip()
    if field not in _NUMBERS:
        return text
    return (int(text) if text.isdecimal() and len(text) < 19 else text) if text else None


def _context(project: Project, owner: bool, values: Any, errors: dict[str, str]) -> dict[str, Any]:
    shown = {
        field: "" if values.get(field) is None else str(values.get(field)) for field in retention.Rules.model_fields
    }
    levels = [(str(level), label) for level, label in Project._meta.get_field("thin_level").choices or ()]
    return {"project": project, "owner": owner, "values": shown, "errors": errors, "levels": levels}
