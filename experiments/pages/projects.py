"""Projects and their retention rules: a list, and a form for owners."""

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
from experiments.pages.http.address import whole_number

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
        context = _context(project, owner, retention.rules_of(project).model_dump(), {})
        return render(request, "pages/projects/page.html", context)
    if not owner:
        raise PermissionDenied("Only owners of a project may change its retention rules.")
    rules = {field: _read(field, request.POST.get(field, "")) for field in retention.Rules.model_fields}
    try:
        retention.change(project, rules)
    except ValidationError as error:
        problems = {str(each["loc"][0]): each["msg"].removeprefix("Value error, ") for each in error.errors()}
        context = _context(project, owner, request.POST, problems)
        return render(request, "pages/projects/page.html", context, status=400)
    messages.success(request, "Saved. The rules are applied in the background.")
    return redirect("project", project.name)


def _read(field: str, text: str) -> Any:
    """The value of a form's text: an empty number means never; text that spells no number is kept, to be refused."""
    text = text.strip()
    if field not in _NUMBERS:
        return text
    number = whole_number(text)
    return number if number is not None else text or None


def _context(project: Project, owner: bool, values: Any, errors: dict[str, str]) -> dict[str, Any]:
    shown = {
        field: "" if values.get(field) is None else str(values.get(field)) for field in retention.Rules.model_fields
    }
    levels = [(str(level), label) for level, label in Project._meta.get_field("thin_level").choices or ()]
    return {"project": project, "owner": owner, "values": shown, "errors": errors, "levels": levels}
