"""The tabs of the gradient chain and of the probes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.http import HttpRequest

from experiments.inspection.gradient_flow import FINALS, OLD
from experiments.inspection.linear_probes import MISSING, Probe, probes
from experiments.models import Run
from experiments.pages.http.address import refuse
from experiments.spec.errors import did_you_mean
from experiments.store import last_values

from .panels import names_of

_WIDTH, _BAR, _GAP = 300.0, 16, 6
ERRORS = {
    "fp32": "Largest error, single precision",
    "fp32_of_bound": "Error ÷ rounding bound",
    "fp64": "Largest error, double precision",
    "from_loss_fp64": "From the mask loss, double precision",
    "fp64_last": "At the last probe, double precision",
}
NAMES = {"q": "Q", "k": "K", "v": "V", "x": "X (input)"}


@dataclass(frozen=True)
class Bar:
    """A probe as lengths in an image of _WIDTH units: the bar and its baselines."""

    name: str
    vector: str
    y: int
    width: float
    untrained: float | None
    control: float | None
    probe: Probe


def flow_tab(request: HttpRequest, run: Run) -> dict[str, Any]:
    names = names_of([run.pk])
    sites = list(dict.fromkeys(name.split("/")[1] for name in names if name.startswith("flow/")))
    site = request.GET.get("site")
    if site and site not in sites and (sites or run.ended):
        refuse(request, "site", f"no gradient was recorded at a site '{site}'{did_you_mean(site, sites)}")
    last = last_values([run.pk], FINALS.values()).get(run.pk, {})
    errors = [(ERRORS[key], last.get(name)) for key, name in FINALS.items() if key != OLD or name in last]
    return {"sites": sites, "errors": errors, "view": request.GET}


def probes_tab(request: HttpRequest, run: Run) -> dict[str, Any]:
    rows = probes(run.pk)
    groups = [(name, _bars(list(group))) for name, group in groupby(rows, lambda probe: probe.property)]
    tall = max((len(bars) for _, bars in groups), default=0) * (_BAR + _GAP)
    return {"groups": groups, "probes": rows, "no_probes": MISSING, "tall": tall, "wide": _WIDTH}


def _bars(rows: list[Probe]) -> list[Bar]:
    return [
        Bar(
            NAMES[probe.vector],
            probe.vector,
            place * (_BAR + _GAP),
            _length(probe.trained) or 0.0,
            _length(probe.untrained),
            _length(probe.control),
            probe,
        )
        for place, probe in enumerate(rows)
    ]


def _length(value: float | None) -> float | None:
    return None if value is None else round(_WIDTH * max(0.0, min(1.0, value)), 1)
