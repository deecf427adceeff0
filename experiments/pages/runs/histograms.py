"""Histograms of gradients and weights over a run's probes, drawn as one image: a column per probe, a row per bin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from experiments.models import Artifact, Run
from experiments.pages.http.access import run_or_404
from experiments.pages.http.address import Address, refuse, takes
from experiments.pages.http.polling import polled
from experiments.spec.errors import did_you_mean

NAME, MAX_PROBES = "histograms", 80
QUANTITIES = ("gradient", "weight")
LEFT, TOP, WIDTH, HEIGHT, FOOT = 44, 4, 640, 220, 18  # of the image, in its own units


@dataclass(frozen=True)
class HistogramBin:
    """One bin of one probe."""

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
    matrix, known = request.GET.get("matrix"), context["histogram_matrices"]
    if matrix and matrix not in known and (known or run.ended):
        refuse(request, "matrix", f"no histogram of '{matrix}' is stored{did_you_mean(matrix, known)}")
    return polled(request, "pages/run/histograms.html", {"run": run} | context, 0 if run.ended else 10)


def histograms(run: Run, given: Any) -> dict[str, Any]:
    """Context of the template; no matrices where the run has kept no histogram."""
    files = Artifact.objects.filter(run=run, kind="file", name=NAME).order_by("step")[:MAX_PROBES]
    probes = [json.loads(_text(file.path)) for file in files]
    matrices = sorted({name.partition("/")[2] for name in probes[-1]["counts"]}) if probes else []
    if not matrices:
        return {"histogram_matrices": []}
    quantity = given.get("of", QUANTITIES[0])
    quantity = quantity if quantity in QUANTITIES else QUANTITIES[0]
    matrix = given.get("matrix", "")
    matrix = matrix if matrix in matrices else matrices[0]
    return {
        "histogram_matrices": matrices,
        "histogram_matrix": matrix,
        "histogram_of": quantity,
        "quantities_of": QUANTITIES,
        "size": {"width": LEFT + WIDTH, "height": TOP + HEIGHT + FOOT, "left": LEFT, "foot": TOP + HEIGHT + FOOT - 4},
        "first": probes[0]["step"],
        "last": probes[-1]["step"],
        "broken": sum(probe["counts"].get(f"{quantity}/{matrix}", [0])[-1] for probe in probes),
    } | _drawn(probes, f"{quantity}/{matrix}")


def _drawn(probes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The cells of the bins that occur, and a tick at each decade."""
    rows = [probe["counts"].get(name, []) for probe in probes]
    used = [bin_ for row in rows for bin_, count in enumerate(row[:-1]) if count]
    low, high = (min(used), max(used)) if used else (0, 0)
    height = HEIGHT / (high - low + 1)
    cells: list[HistogramBin] = []
    for column, (probe, row) in enumerate(zip(probes, rows, strict=True)):
        cells += _column(column, WIDTH / len(rows), probe["step"], row, low, high)
    return {"cells": cells, "ticks": list(_ticks(probes[0]["lowest"], probes[0]["per_decade"], low, high, height))}


def _column(column: int, width: float, step: int, row: list[int], low: int, high: int) -> Iterator[HistogramBin]:
    """One probe; the darkest cell is its fullest bin."""
    height = HEIGHT / (high - low + 1)
    x, fullest = round(LEFT + column * width, 1), max(row[low : high + 1], default=0)
    for bin_, count in enumerate(row[:-1]):
        if count:
            y, opacity = round(TOP + (high - bin_) * height, 1), round((count / fullest) ** 0.5, 3)
            title = f"step {step}: {count} of {sum(row)}"
            yield HistogramBin(x, y, round(width, 1), round(height, 1), opacity, title)


def _ticks(lowest: int, per_decade: int, low: int, high: int, height: float) -> Iterator[dict[str, Any]]:
    for bin_ in range(low, high + 2):
        decade, rest = divmod(bin_ - 1, per_decade)
        y = TOP + (high - bin_ + 1) * height
        if rest == 0 and y >= TOP:
            yield {"text": f"1e{lowest + decade}", "y": round(y, 1)}


def _text(path: str) -> str:
    with default_storage.open(path) as file:
        return str(file.read().decode())
