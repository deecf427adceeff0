"""Compare 2 to 100 runs: overlaid curves, what differs in their specs, and how they ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from experiments.api.http.names import without_match
from experiments.models import Headline, Param, Run
from experiments.models.trained_with import shown, trained_with
from experiments.pages.http.address import refuse, takes
from experiments.spec.errors import did_you_mean
from experiments.store.choice import matches

from .address import ChartAddress
from .matrix_grid import MATRICES, MAX_SITES, sites_of
from .panels import names_by_run

MAX_PANELS = 48
USUAL = ("loss/total", "eval/*", "grad_norm/total")  # and the matrices of every site, smaller
_NEVER = {"seed"}


@dataclass(frozen=True)
class Row:
    """One leaf of the specs across the runs."""

    path: str
    values: list[str | None]
    differs: bool

    @property
    def cells(self) -> list[tuple[str | None, bool]]:
        """Each value, and whether it is another than the first run's."""
        return [(value, value != self.values[0]) for value in self.values]


class CompareAddress(ChartAddress):
    repeated = ("pick",)
    pick: str | None = None
    runs: str | None = None
    names: str | None = None
    color: str | None = None
    diff: Literal["all"] | None = None


@takes(CompareAddress)
@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    if "pick" in request.GET:
        picked = _ids(request, "pick", ",".join(request.GET.getlist("pick")))
        return redirect(f"{request.path}?runs={','.join(map(str, picked))}")
    wanted = _ids(request, "runs", request.GET.get("runs", ""))
    most = settings.ATTN_MAX_SERIES_RUNS
    found = Run.objects.visible_to(request.user).select_related("experiment", "project").defer("spec", "detail")
    runs = list(found.filter(pk__in=wanted[:most]).order_by("id"))
    if missing := sorted({*wanted[:most]} - {run.pk for run in runs}):
        refuse(request, "runs", f"there is no run {', '.join(map(str, missing))} that you may see")
    context: dict[str, Any] = {"runs": runs, "over": len(wanted) > most, "most": most}
    if len(runs) < 2:
        return render(request, "pages/compare/empty.html", context | {"recent": found.order_by("-id")[:20]})
    return render(request, "pages/compare/page.html", context | _context(request, runs))


def _ids(request: HttpRequest, name: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    ids = [part for part in parts if part.isascii() and part.isdecimal() and len(part) < 19]
    if odd := [part for part in parts if part not in ids]:
        refuse(request, name, f"takes ids of runs; you gave {', '.join(map(repr, odd))}")
    return list(dict.fromkeys(map(int, ids)))


def _context(request: HttpRequest, runs: list[Run]) -> dict[str, Any]:
    by_run = names_by_run(run.pk for run in runs)
    names = list(dict.fromkeys(name for mine in by_run.values() for name in mine))
    asked = [glob.strip() for glob in request.GET.get("names", "").split(",") if glob.strip()]
    globs = asked or [glob for glob in USUAL if any(matches(name, [glob]) for name in names)]
    chosen = [name for name in names if matches(name, globs)]
    rows = _config(runs)
    differing = [row for row in rows if row.differs]
    sites = [] if asked else sites_of(map(set, by_run.values()), names)
    by = request.GET.get("color", "")
    _check(request, asked, names, rows)
    return {
        "ids": ",".join(str(run.pk) for run in runs),
        "names": ",".join(globs),
        "all_names": names,
        "panels": chosen[:MAX_PANELS],
        "hidden_panels": max(0, len(chosen) - MAX_PANELS),
        "matrices": MATRICES,
        "sites": sites[:MAX_SITES],
        "hidden_sites": max(0, len(sites) - MAX_SITES),
        "rows": rows if request.GET.get("diff") == "all" else differing,
        "differing": [row for row in differing if row.path not in _NEVER],
        "same_count": len(rows) - len(differing),
        "show_all": request.GET.get("diff") == "all",
        "color": by,
        "entries": _entries(runs, differing, by),
        "view": request.GET,
        "live": any(not run.ended for run in runs),
    } | _headlines(runs)


def _check(request: HttpRequest, asked: list[str], names: list[str], rows: list[Row]) -> None:
    """That every pattern matches a series, and that the runs differ in what they are coloured by."""
    for glob in without_match(asked, names):
        refuse(request, "names", f"none of these runs has recorded '{glob}' (yet){did_you_mean(glob, names)}")
    by = request.GET.get("color")
    if by and by not in [row.path for row in rows if row.differs]:
        hint = did_you_mean(by, [row.path for row in rows if row.path != by])
        refuse(request, "color", f"these runs do not differ in '{by}'{hint}")


def _config(runs: list[Run]) -> list[Row]:
    """One query for all specs; order as in the first run's spec."""
    cells: dict[str, dict[int, str]] = {}
    rows = Param.objects.filter(run__in=runs).order_by("run_id", "id").values_list("run_id", "key", "text")
    for run, key, text in rows:
        cells.setdefault(key, {})[run] = text
    found = []
    for path, by_run in cells.items():
        values = [by_run.get(run.pk) for run in runs]
        found.append(Row(path, values, len(set(values)) > 1))
    return [*found, *_circumstances(runs)]


def _circumstances(runs: list[Run]) -> Iterator[Row]:
    """What the runs were trained with besides their specs."""
    told = trained_with(runs)
    lines = [shown(told.get(run.pk)) for run in runs]
    for name in dict.fromkeys(name for line in lines for name in line):
        values = [line.get(name) for line in lines]
        yield Row(f"trained with: {name}", values, len(set(values)) > 1)


def _entries(runs: list[Run], differing: list[Row], by: str) -> list[dict[str, Any]]:
    """The runs as charts and tables name them: by what tells them apart, and coloured by a parameter if asked."""
    telling = [row for row in differing if row.path != "seed"][:3]
    value_of = next(
        (dict(zip((r.pk for r in runs), row.values, strict=True)) for row in differing if row.path == by), {}
    )
    shades = {value: at for at, value in enumerate(dict.fromkeys(value_of.values()))}
    return [
        {
            "run": run,
            "label": ", ".join(str(row.values[at]) for row in telling) or run.experiment.name,
            "shade": shades[value_of[run.pk]] if value_of else at,
            "group": value_of.get(run.pk),
        }
        for at, run in enumerate(runs)
    ]


def _headlines(runs: list[Run]) -> dict[str, Any]:
    """The table of results: loss, evaluations and gradient norm of every run, best value marked."""
    heads = Headline.objects.filter(run__in=runs).order_by("id")
    keys = [key for key in dict.fromkeys(head.key for head in heads) if matches(key, ["loss/total", "eval/*"])]
    values = {(head.run_id, head.key): head for head in heads}
    best = {key: _best(key, [head.last for head in heads if head.key == key]) for key in keys}
    rows = []
    for run in runs:
        mine = [values.get((run.pk, key)) for key in keys]
        rows.append((run, [(head, head is not None and head.last == best[head.key]) for head in mine]))
    return {"keys": keys, "results": rows}


def _best(key: str, values: list[float | None]) -> float | None:
    """The largest score or the smallest loss; none where only one run has a value."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return max(known) if key.startswith("eval/") and "loss" not in key else min(known)
