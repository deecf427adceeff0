"""The new-experiment page: a form and a YAML editor of the same spec, checked during typing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST
from pydantic import Field

from experiments import lifecycle
from experiments.api.http.query import RowId
from experiments.models import Project, Run
from experiments.pages.http import yaml_text
from experiments.pages.http.access import editable_projects, experiment_or_404
from experiments.pages.http.address import Address, refuse, takes
from experiments.spec import TASKS, FieldError, flatten
from experiments.submissions import estimates, plugins
from experiments.submissions.presets import presets
from experiments.submissions.submission import Plan, SubmissionError, plan
from experiments.verdicts.today import trained_already

from . import spec_form
from .draft import Draft, blank, from_experiment, from_post, from_preset

SHOWN_RUNS = 24


@dataclass(frozen=True)
class DraftCheck:
    """The result of checking a draft: a plan, or errors."""

    plan: Plan | None = None
    errors: list[FieldError] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def by_input(self) -> dict[str, str]:
        messages: dict[str, list[str]] = {}
        for error in self.errors:
            messages.setdefault(input_of(error), []).append(error.message)
        return {name: "; ".join(texts) for name, texts in messages.items()}


def input_of(error: FieldError) -> str:
    """The name of the input that an error belongs to."""
    head, *rest = error.path or ("",)
    match head:
        case "spec" if rest:  # a list is one input: its indices are dropped
            return ".".join(["spec", *(part for part in rest if isinstance(part, str))])
        case "overrides" if rest:
            return f"spec.{rest[0]}"
        case "pool":
            return "spec.resources.pool"
        case "matrix" if rest:
            return f"matrix.{rest[0]}"
    return str(head)


def check_draft(request: HttpRequest, draft: Draft) -> DraftCheck:
    """Plan the draft as REST does; nothing is stored."""
    unreadable = any(error.path == ("yaml",) for error in draft.wrong)
    body = draft.submission()
    errors = list(draft.wrong)
    if unreadable:
        return DraftCheck(errors=errors)
    planned = None
    try:
        planned = plugins.check(plan(body, max_runs=settings.ATTN_MAX_RUNS))
    except SubmissionError as refusal:
        reported = {input_of(error) for error in errors}
        errors += [error for error in refusal.errors if input_of(error) not in reported]
    if _project(request, draft) is None:
        errors.append(FieldError(("project",), "choose a project that you may submit to"))
    if errors:
        lines = yaml_text.lines_of(draft.yaml, errors) if draft.source == "yaml" else {}
        return DraftCheck(errors=errors, lines=lines)
    return DraftCheck(plan=planned)


def _project(request: HttpRequest, draft: Draft) -> Project | None:
    return editable_projects(request).filter(name=draft.project).first()


class NewAddress(Address):
    preset: str | None = Field(None, max_length=200)
    from_: RowId | None = Field(None, alias="from")


@takes(NewAddress)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    if not editable_projects(request).exists():
        raise PermissionDenied("You are not an editor of any project. Ask an administrator to add you to one.")
    if request.method == "GET":
        draft = _start(request)
        checked = check_draft(request, replace(draft, name=draft.name or "untitled"))  # no error before anybody typed
        status = 400 if "preset" in checked.by_input else 200
        return render(request, "pages/new_experiment/page.html", _context(request, draft, checked), status=status)
    draft = from_post(request.POST)
    checked = check_draft(request, draft)
    project = _project(request, draft)
    if checked.plan is None or project is None:
        return render(request, "pages/new_experiment/page.html", _context(request, draft, checked), status=400)
    experiment = lifecycle.submit(checked.plan, project=project, user=request.user)  # type: ignore[arg-type]
    messages.success(request, f"Submitted: {len(checked.plan.runs)} runs are queued for pool '{checked.plan.pool}'.")
    for part in checked.plan.left_out:
        messages.warning(request, f"{part.text}.")
    return redirect("experiment", experiment.pk)


@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Live validation: the runs that the draft expands to, or its errors."""
    draft = from_post(request.POST)
    checked = check_draft(request, draft)
    return render(request, "pages/new_experiment/check.html", _check_context(request, draft, checked))


@require_POST
def editor(request: HttpRequest) -> HttpResponse:
    """The editor, after the task, the dataset or the way of editing has changed."""
    draft = from_post(request.POST)
    if not draft.wrong and request.POST.get("to") in {"form", "yaml"}:
        draft.write_yaml()
        if request.POST["to"] == "yaml" or not (lost := draft.beyond_form()):
            draft.source = request.POST["to"]
        else:
            message = f"the form has no field for {', '.join(lost[:5])} and would lose it"
            draft.wrong.append(FieldError(("yaml",), message))
    checked = check_draft(request, draft)
    return render(request, "pages/new_experiment/editor.html", _context(request, draft, checked))


def _start(request: HttpRequest) -> Draft:
    """A blank draft, one from a preset, or one from an experiment, as the address says."""
    name, experiment = request.GET.get("preset", ""), request.GET.get("from", "")
    if name and experiment:
        refuse(request, "from", "start from a preset or from an experiment: give preset or from, not both")
    if name in presets():
        draft = from_preset(presets()[name])
    elif experiment and not name:
        draft = from_experiment(experiment_or_404(request, int(experiment)))
    else:
        draft = blank()
        draft.preset = name  # empty, or unknown and reported at once
    draft.project = draft.project or editable_projects(request)[0].name
    return draft


def _context(request: HttpRequest, draft: Draft, checked: DraftCheck) -> dict[str, Any]:
    if draft.source == "form":
        draft.write_yaml()
    leaves = dict(flatten(draft.spec)) | spec_form.mappings(draft.spec, draft.task, draft.dataset)
    return _check_context(request, draft, checked) | {
        "presets": presets().values(),
        "projects": editable_projects(request),
        "tasks": {name: spec_form.TASK_TITLES.get(name, name) for name in TASKS},
        "datasets": spec_form.datasets(draft.task),
        "sections": spec_form.sections(draft.task, draft.dataset),
        "leaves": leaves,
        "paths": sorted(spec_form.fields(draft.task, draft.dataset)),
        "rows": draft.matrix or [("", "")],
        "line_count": range(1, draft.yaml.count("\n") + 2),
    }


def _check_context(request: HttpRequest, draft: Draft, checked: DraftCheck) -> dict[str, Any]:
    runs = checked.plan.runs if checked.plan else []
    columns = list(dict.fromkeys(chain.from_iterable(run.params for run in runs)))
    return {
        "draft": draft,
        "plan": checked.plan,
        "problems": [(error, input_of(error), checked.lines.get(error.dotted)) for error in checked.errors],
        "errors": checked.by_input,
        "errors_json": json.dumps(checked.by_input),
        "bad_lines": sorted(set(checked.lines.values())),
        "shown": [(run, [run.params.get(path) for path in columns]) for run in runs[:SHOWN_RUNS]],
        "more": max(0, len(runs) - SHOWN_RUNS),
        "columns": columns,
        "total_steps": sum(run.spec.train.steps for run in runs),
    } | (_cost(request, checked.plan) | _trained(request, checked.plan) if checked.plan else {})


def _trained(request: HttpRequest, planned: Plan) -> dict[str, Any]:
    """Existing runs with the same spec."""
    hashes = dict.fromkeys(run.spec_hash for run in planned.runs)
    by_hash = trained_already(hashes.keys(), Run.objects.visible_to(request.user))
    trained = [by_hash[key] for key in hashes if key in by_hash]
    circumstances = {f"torch {run.identity.torch} on {run.identity.device_kind}" for run in trained}
    return {
        "trained": trained,
        "trained_ids": ",".join(str(run.run) for run in trained[: settings.ATTN_MAX_SERIES_RUNS]),
        "trained_by": " or ".join(sorted(circumstances)),
        "trained_on_files": any(run.identity.data_digest for run in trained),
    }


def _cost(request: HttpRequest, planned: Plan) -> dict[str, Any]:
    """Sizes of the models and, where similar runs were measured, the training time."""
    specs = [run.spec for run in planned.runs]
    sizes = [size for spec in specs if (size := estimates.parameters(spec)) is not None]
    seconds = estimates.seconds(specs, Run.objects.visible_to(request.user))
    return {"smallest": min(sizes, default=None), "largest": max(sizes, default=None), "seconds": seconds}
