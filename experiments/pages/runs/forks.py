"""The form of a fork: a checkpoint, changed settings."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from experiments import lifecycle
from experiments.models import Run
from experiments.pages.http import yaml_text
from experiments.pages.http.access import require_editor, run_or_404
from experiments.pages.http.address import whole_number
from experiments.spec import FieldError
from experiments.submissions.forks import fork_plan, step_of
from experiments.submissions.submission import SubmissionError


@require_http_methods(["GET", "POST"])
def run_fork(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    require_editor(request, run.project)
    if request.method == "GET":
        errors = [] if run.checkpoint_step else [FieldError(("step",), "this run has no checkpoint yet")]
        return render(request, "pages/run/fork.html", _context(run, {"overrides": _offered(run)}, errors))
    try:
        fork = _start(request, run)
    except SubmissionError as error:
        return render(request, "pages/run/fork.html", _context(run, request.POST, error.errors), status=400)
    messages.success(request, f"Run {fork.pk} is queued; it starts from step {fork.parent_step}.")
    return redirect("run", fork.pk)


def _start(request: HttpRequest, run: Run) -> Run:
    step = step_of(run, whole_number(request.POST.get("step", "")))
    planned = fork_plan(run, step, _overrides(request.POST.get("overrides", "")), request.POST.get("name", ""))
    try:
        return lifecycle.fork(run, step, planned, request.user)  # type: ignore[arg-type]
    except lifecycle.NotAllowed as error:
        raise SubmissionError([FieldError(("step",), str(error))]) from None


def _offered(run: Run) -> str:
    """A fork from the last step needs more steps: as many again."""
    return f"train.steps: {2 * run.steps}" if run.checkpoint_step >= run.steps else ""


def _overrides(text: str) -> dict[str, Any]:
    try:
        return yaml_text.load(text) if text.strip() else {}
    except yaml_text.YamlError as error:
        where = f"line {error.line}: " if error.line else ""
        raise SubmissionError([FieldError(("overrides",), where + str(error))]) from None


def _context(run: Run, post: Any, errors: list[FieldError]) -> dict[str, Any]:
    step = whole_number(post.get("step", ""))
    return {
        "run": run,
        "checkpoints": run.checkpoints.defer("stats").order_by("-step", "-id"),
        "step": run.checkpoint_step if step is None else step,
        "text": post.get("overrides", ""),
        "name": post.get("name", ""),
        "errors": errors,
    }
