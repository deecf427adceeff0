"""Histograms of gradients and weights over a run's probes, drawn as one picture: a column a probe, a row a size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from experiments.models import Artifact, Run
from experiments.pages.http.access import run_or_404
from experiments.pages.http.address import Address, refuse, takes
from experiments.spec.errors import did_you_mean

NAME, MOST = "histograms", 80
QUANTITIES = ("gradient", "weight")
LEFT, TOP, WIDTH, HEIGHT, FOOT = 44, 4, 640, 220, 18  # of the picture, in its own units


@dataclass(frozen=True)
class Cell:
    """One bin of one probe; `share` of the matrix's entries lie in it."""

    x: float
    y: float
    width: float
    height: float
    opacity: float
    title: str


class HistogramsAddress(Address):
    of: Literal["gradient", "weight"] | None = None
    matrix: str | None = None


@takes(HistogramsAddress)
@require_safe
def run_histograms(request: HttpRequest, pk: int) -> HttpResponse:
    run = run_or_404(request, pk)
    context = histograms(run, request.GET)
    asked, known = request.GET.get("matrix"), context["histogram_matrices"]
    if asked and asked not in known and (known or run.ended):
        refuse(request, "matrix", f"no histogram is stored of '{asked}'{did_you_mean(asked, known)}")
    response = render(request, "pages/run/histograms.html", {"run": run} | context)
    response["X-Next-Poll"] = "0" if run.ended else "10"
    return response


def histograms(run: Run, asked: Any) -> dict[str, Any]:
    """What the template draws; nothing where the run has kept none."""
    files = Artifact.objects.filter(run=run, kind="file", name=NAME).order_by("step")[:MOST]
    probes = [json.loads(_text(file.path)) for file in files]
    matrices = sorted({name.partition("/")[2] for name in probes[-1]["counts"]}) if probes else []
    if not matrices:
        return {"histogram_matrices": []}
    what = asked.get("of", QUANTITIES[0])
    what = what if what in QUANTITIES else QUANTITIES[0]
    matrix = asked.get("matrix", "")
    matrix = matrix if matrix in matrices else matrices[0]
    return {
        "histogram_matrices": matrices,
        "histogram_matrix": matrix,
        "histogram_of": what,
        "quantities_of": QUANTITIES,
        "size": {"width": LEFT + WIDTH, "height": TOP + HEIGHT + FOOT, "left": LEFT, "foot": TOP + HEIGHT + FOOT - 4},
        "first": probes[0]["step"],
        "last": probes[-1]["step"],
        "broken": sum(probe["counts"].get(f"{what}/{matrix}", [0])[-1] for probe in probes),
    } | _drawn(probes, f"{what}/{matrix}")


def _drawn(probes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The cells, and a tick at each decade, of the sizes that occur."""
    rows = [probe["counts"].get(name, []) for probe in probes]
    used = [at for row in rows for at, count in enumerate(row[:-1]) if count]
    low, high = (min(used), max(used)) if used else (0, 0)
    tall, wide = HEIGHT / (high - low + 1), WIDTH / len(rows)
    cells = [
        Cell(
            round(LEFT + column * wide, 1),
            round(TOP + (high - at) * tall, 1),
            round(wide, 1),
            round(tall, 1),
            round((count / max(row[low : high + 1])) ** 0.5, 3),
            f"step {probe['step']}: {count} of {sum(row)}",
        )
        for column, (probe, row) in enumerate(zip(probes, rows, strict=True))
        for at, count in enumerate(row[:-1])
        if count
    ]
    first, per = probes[0]["lowest"], probes[0]["per_decade"]
    edges = [
        (first + (at - 1) // per, TOP + (high - at + 1) * tall) for at in range(low, high + 2) if (at - 1) % per == 0
    ]
    return {"cells": cells, "ticks": [{"text": f"1e{power}", "y": round(y, 1)} for power, y in edges if y >= TOP]}


def _text(path: str) -> str:
    with default_storage.open(path) as file:
        return str(file.read().decode())
