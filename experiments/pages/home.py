"""Home: the presets, the runs in progress, the queue."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from experiments.models import Headline, Run
from experiments.pages.http.address import Address, takes
from experiments.pages.http.polling import polled
from experiments.states import ENDED
from experiments.submissions.presets import Preset, presets
from experiments.verdicts.judge import Verdict
from experiments.verdicts.verdict import all_verdicts

from .workers import workers_and_queue

RECENT = 8


class HomeAddress(Address):
    part: Literal["recent", "live"] | None = None


@takes(HomeAddress)
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    part = request.GET.get("part") or "page"
    if part == "recent":
        return polled(request, "pages/home/recent.html", _recent(request), 5)
    context = _now(request)
    if part == "page":
        context |= _recent(request) | {"presets": _gallery(request)}
        context["losses"] = _losses([*context["running"], *context["recent"]])
    return polled(request, f"pages/home/{part}.html", context, 2 if context["running"] else 4)


def _now(request: HttpRequest) -> dict[str, Any]:
    visible = Run.objects.visible_to(request.user).select_related("experiment", "worker").defer("spec", "detail")
    running = list(visible.held().order_by("-started", "-id")[:RECENT])
    return workers_and_queue(request) | {"running": running, "losses": _losses(running)}


def _recent(request: HttpRequest) -> dict[str, Any]:
    visible = Run.objects.visible_to(request.user).select_related("experiment").defer("spec", "detail")
    recent = list(visible.filter(state__in=ENDED).order_by("-finished")[:RECENT])
    return {"recent": recent, "losses": _losses(recent)}


def _gallery(request: HttpRequest) -> list[tuple[Preset, Verdict | None]]:
    """Each preset with its verdict, where any seed has been trained."""
    verdicts = {name: verdict for name, verdict in all_verdicts(request.user).items() if verdict.most_seeds}
    return [(preset, verdicts.get(name)) for name, preset in presets().items()]


def _losses(runs: list[Run]) -> dict[str, float | None]:
    headlines = Headline.objects.filter(run__in=runs, key="loss/total").values_list("run_id", "last")
    return {str(run): last for run, last in headlines}
