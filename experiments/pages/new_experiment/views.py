"""The page where an experiment is made: a form and a YAML editor of the same spec, checked while one types."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
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
from experiments.pages.http import yaml_text as yamltext
from experiments.pages.http.access import editable_projects, experiment_or_404
from experiments.pages.http.address import Address, refuse, takes
from experiments.spec import TASKS, FieldError, flatten
from experiments.submissions import estimates, plugins
from experiments.submissions.presets import presets
from experiments.submissions.submission import Plan, SubmissionError, plan
from experiments.verdicts.today import trained_already

from . import draft as drafts
from . import spec_form as specform
from .draft import Draft

SHOWN_RUNS = 24


@dataclass(frozen=True)
class Verdict:
    """What checking a draft came to: a plan, or errors by the input they belong to."""

    plan: Plan | None = None
    errors: list[FieldError] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def by_input(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for error in self.errors:
            at = input_of(error)
            found[at] = f"{found[at]}; {error.message}" if at in found else error.message
        return found


def input_of(error: FieldError) -> str:
    """The name of the input that an error belongs to."""
    path = [str(part) for part in error.path if error.path[0] != "spec" or isinstance(part, str)]  # a list is one input
    head, *rest = path or [""]
    if head == "spec" and rest:
        return ".".join(["spec", *rest])
    if head == "overrides" and rest:
        return f"spec.{rest[0]}"
    if head == "pool":
        return "spec.resources.pool"
    if head == "matrix" and rest:
        return f"matrix.{rest[0]}"
    return head


def judge(request: HttpRequest, draft: Draft) -> Verdict:
    """Plan the draft as REST would; nothing is stored."""
    unreadable = any(error.path == ("yaml",) for error in draft.wrong)
    body = draft.submission()
    errors = list(draft.wrong)
    if unreadable:
        return Verdict(errors=errors)
    try:
        found = plugins.check(plan(body, max_runs=settings.ATTN_MAX_RUNS))
    except SubmissionError as error:
        found, told = None, {input_of(item) for item in errors}
        errors += [item for item in error.errors if input_of(item) not in told]
    if _project(request, draft) is None:
        errors.append(FieldError(("project",), "choose a project that you may submit to"))
    if found is None or errors:
        lines = yamltext.lines_of(draft.yaml, errors) if draft.source == "yaml" else {}
        return Verdict(errors=errors, lines=lines)
    return Verdict(plan=found)


def _project(request: HttpRequest, draft: Draft) -> Project | None:
    return editable_projects(request).filter(name=draft.project).first()


class NewAddress(Address):
    """What to start from."""

    preset: str | None = Field(None, max_length=200)
    from_: RowId | None = Field(None, alias="from")


@takes(NewAddress)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    if not editable_projects(request).exists():
        raise PermissionDenied("You are no editor of any project yet. Ask an administrator to add you to one.")
    if request.method == "GET":
        draft = _start(request)
        verdict = judge(request, replace(draft, name=draft.name or "untitled"))  # nobody has had the time to name it
        status = 400 if "preset" in verdict.by_input else 200
        return render(request, "pages/new_experiment/page.html", _context(request, draft, verdict), status=status)
    draft = drafts.from_post(request.POST)
    verdict = judge(request, draft)
    project = _project(request, draft)
    if verdict.plan is None or project is None:
        return render(request, "pages/new_experiment/page.html", _context(request, draft, verdict), status=400)
    experiment = lifecycle.submit(verdict.plan, project=project, user=request.user)  # type: ignore[arg-type]
    messages.success(request, f"Submitted: {len(verdict.plan.runs)} runs are in the line for '{verdict.plan.pool}'.")
    for part in verdict.plan.left_out:
        messages.warning(request, f"{part.text}.")
    return redirect("experiment", experiment.pk)


@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Live validation: the runs it expands to, or what is wrong and where."""
    draft = drafts.from_post(request.POST)
    verdict = judge(request, draft)
    return render(request, "pages/new_experiment/check.html", _verdict_context(request, draft, verdict))


@require_POST
def editor(request: HttpRequest) -> HttpResponse:
    """The editor again after the task, the dataset or the way of editing changed."""
    draft = drafts.from_post(request.POST)
    if not draft.wrong and request.POST.get("to") in {"form", "yaml"}:
        draft.write_yaml()
        if request.POST["to"] == "yaml" or not (lost := draft.beyond_form()):
            draft.source = request.POST["to"]
        else:
            words = f"the form has no field for {', '.join(lost[:5])}: what stands there would be lost"
            draft.wrong.append(FieldError(("yaml",), words))
    verdict = judge(request, draft)
    return render(request, "pages/new_experiment/editor.html", _context(request, draft, verdict))


def _start(request: HttpRequest) -> Draft:
    """A blank draft, a preset's, or an earlier experiment's; the address says which."""
    name, earlier = request.GET.get("preset", ""), request.GET.get("from", "")
    if name and earlier:
        refuse(request, "from", "start from a preset or from an experiment: give preset or from, not both")
    if name in presets():
        draft = drafts.from_preset(presets()[name])
    elif earlier and not name:
        draft = drafts.from_experiment(experiment_or_404(request, int(earlier)))
    else:
        draft = drafts.blank()
        draft.preset = name  # none, or one that is not known: told at once
    draft.project = draft.project or editable_projects(request)[0].name
    return draft


def _context(request: HttpRequest, draft: Draft, verdict: Verdict) -> dict[str, Any]:
    if draft.source == "form":
        draft.write_yaml()
    leaves = dict(flatten(draft.spec)) | specform.mappings(draft.spec, draft.task, draft.dataset)
    return _verdict_context(request, draft, verdict) | {
        "presets": presets().values(),
        "projects": editable_projects(request),
        "tasks": {name: specform.TASK_TITLES.get(name, name) for name in TASKS},
        "datasets": specform.datasets(draft.task),
        "sections": specform.sections(draft.task, draft.dataset),
        "leaves": leaves,
        "paths": sorted(specform.fields(draft.task, draft.dataset)),
        "rows": draft.matrix or [("", "")],
        "line_count": range(1, draft.yaml.count("\n") + 2),
    }


def _verdict_context(request: HttpRequest, draft: Draft, verdict: Verdict) -> dict[str, Any]:
    found = verdict.plan
    runs = found.runs if found else []
    columns = list(dict.fromkeys(path for run in runs for path in run.params))
    told = [(error, input_of(error), verdict.lines.get(error.dotted)) for error in verdict.errors]
    return {
        "draft": draft,
        "plan": found,
        "told": told,
        "errors": verdict.by_input,
        "errors_json": json.dumps(verdict.by_input),
        "bad_lines": sorted(set(verdict.lines.values())),
        "shown": [(run, [run.params.get(path) for path in columns]) for run in runs[:SHOWN_RUNS]],
        "more": max(0, len(runs) - SHOWN_RUNS),
        "columns": columns,
        "total_steps": sum(run.spec.train.steps for run in runs),
    } | (_cost(request, found) | _trained(request, found) if found else {})


def _trained(request: HttpRequest, found: Plan) -> dict[str, Any]:
    """Runs that are trained already, to be looked at instead."""
    hashes = dict.fromkeys(run.spec_hash for run in found.runs)
    known = trained_already(hashes.keys(), Run.objects.visible_to(request.user))
    there = [known[key] for key in hashes if key in known]
    compared = ",".join(str(one.run) for one in there[: settings.ATTN_MAX_SERIES_RUNS])
    ways = sorted({f"torch {one.identity.torch} on {one.identity.device_kind}" for one in there})
    files = any(one.identity.data_digest for one in there)
    return {"trained": there, "trained_ids": compared, "trained_by": " or ".join(ways), "trained_on_files": files}


def _cost(request: HttpRequest, found: Plan) -> dict[str, Any]:
    """Sizes of the models and, where runs like these were measured, how long training takes."""
    specs = [run.spec for run in found.runs]
    sizes = [size for spec in specs if (size := estimates.parameters(spec)) is not None]
    seconds = estimates.seconds(specs, Run.objects.visible_to(request.user))
    return {"smallest": min(sizes, default=None), "largest": max(sizes, default=None), "seconds": seconds}
