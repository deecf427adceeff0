"""Home: what one can ask, what runs now, what waits."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from experiments.models import Headline, Run
from experiments.presets import presets
from experiments.states import ENDED

from .machines import machines

RECENT = 8


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    part = request.GET.get("part") == "live"
    context = _now(request) | ({} if part else {"presets": presets().values()})
    response = render(request, "pages/home_live.html" if part else "pages/home.html", context)
    response["X-Next-Poll"] = "2" if context["running"] else "4"
    return response


def _now(request: HttpRequest) -> dict[str, Any]:
    visible = Run.objects.visible_to(request.user).select_related("experiment", "worker").defer("spec", "detail")
    running = list(visible.held().order_by("-started", "-id")[:RECENT])
    losses = Headline.objects.filter(run__in=running, key="loss/total").values_list("run_id", "last")
    return machines(request) | {
        "running": running,
        "losses": {str(run): last for run, last in losses},
        "recent": visible.filter(state__in=ENDED).order_by("-finished")[:RECENT],
    }
