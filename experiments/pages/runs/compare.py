"""Compare 2 to 100 runs: overlaid curves, the differences between their specs, and their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from experiments.api.http.names import without_match
from experiments.models import Headline, Param, Run
from experiments.models.trained_with import shown, trained_with
from experiments.pages.http.address import refuse, takes, whole_number
from experiments.spec.errors import did_you_mean
from experiments.store.choice import matches

from .address import ChartAddress
from .matrix_grid import MAX_SITES, sites_of
from .panels import names_by_run

MAX_PANELS = 48
USUAL = ("loss/total", "eval/*", "grad_norm/total")
RESULTS = ("loss/total", "eval/*")


@dataclass(frozen=True)
class ConfigRow:
    """One leaf of the specs across the runs."""

    path: str
    values: list[str | None]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1

    @property
    def cells(self) -> list[tuple[str | None, bool]]:
        """Each value, and whether it differs from the first run's."""
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
    visible = Run.objects.visible_to(request.user).select_related("experiment", "project").defer("spec", "detail")
    runs = list(visible.filter(pk__in=wanted[:most]).order_by("id"))
    if unknown := sorted({*wanted[:most]} - {run.pk for run in runs}):
        refuse(request, "runs", f"there is no run {', '.join(map(str, unknown))}, or you may not see it")
    context: dict[str, Any] = {"runs": runs, "over": len(wanted) > most, "most": most}
    if len(runs) < 2:
        return render(request, "pages/compare/empty.html", context | {"recent": visible.order_by("-id")[:20]})
    context |= _series(request, runs) | _specs(request, runs) | _results(runs)
    context |= {
        "ids": ",".join(str(run.pk) for run in runs),
        "view": request.GET,
        "live": any(not run.ended for run in runs),
    }
    return render(request, "pages/compare/page.html", context)


def _ids(request: HttpRequest, name: str, text: str) -> list[int]:
    ids = {part: whole_number(part) for part in _listed(text)}
    if invalid := [part for part, number in ids.items() if number is None]:
        refuse(request, name, f"expects ids of runs, not {', '.join(map(repr, invalid))}")
    return list(dict.fromkeys(number for number in ids.values() if number is not None))


def _listed(text: str) -> list[str]:
    return [part for part in map(str.strip, text.split(",")) if part]


def _series(request: HttpRequest, runs: list[Run]) -> dict[str, Any]:
    """The charts: the series that match the patterns of the address, else the usual ones and every site's matrices."""
    by_run = names_by_run(run.pk for run in runs)
    names = list(dict.fromkeys(chain.from_iterable(by_run.values())))
    patterns = _listed(request.GET.get("names", ""))
    for pattern in without_match(patterns, names):
        hint = did_you_mean(pattern, names)
        refuse(request, "names", f"none of these runs has recorded a series '{pattern}'{hint}")
    sites = [] if patterns else sites_of(map(set, by_run.values()), names)
    patterns = patterns or [pattern for pattern in USUAL if not without_match([pattern], names)]
    chosen = [name for name in names if matches(name, patterns)]
    return {
        "names": ",".join(patterns),
        "all_names": names,
        "panels": chosen[:MAX_PANELS],
        "hidden_panels": max(0, len(chosen) - MAX_PANELS),
        "sites": sites[:MAX_SITES],
        "hidden_sites": max(0, len(sites) - MAX_SITES),
    }


def _specs(request: HttpRequest, runs: list[Run]) -> dict[str, Any]:
    """The table of spec fields, and the legend: runs named by what differs, coloured by a field of the address."""
    rows = [*_config(runs), *_circumstances(runs)]
    differing = {row.path: row for row in rows if row.differs}
    show_all = request.GET.get("diff") == "all"
    color = request.GET.get("color", "")
    if color and color not in differing:
        hint = did_you_mean(color, [row.path for row in rows if row.path != color])
        refuse(request, "color", f"these runs do not differ in '{color}'{hint}")
    return {
        "rows": rows if show_all else list(differing.values()),
        "color_choices": [path for path in differing if path != "seed"],
        "same_count": len(rows) - len(differing),
        "show_all": show_all,
        "color": color,
        "entries": _entries(runs, differing, color),
    }


def _config(runs: list[Run]) -> Iterator[ConfigRow]:
    """One query for all specs; order as in the first run's spec."""
    by_path: dict[str, dict[int, str]] = {}
    params = Param.objects.filter(run__in=runs).order_by("run_id", "id").values_list("run_id", "key", "text")
    for run, path, text in params:
        by_path.setdefault(path, {})[run] = text
    for path, by_run in by_path.items():
        yield ConfigRow(path, [by_run.get(run.pk) for run in runs])


def _circumstances(runs: list[Run]) -> Iterator[ConfigRow]:
    """What the runs were trained with besides their specs."""
    by_run = trained_with(runs)
    columns = [shown(by_run.get(run.pk)) for run in runs]
    for name in dict.fromkeys(chain.from_iterable(columns)):
        yield ConfigRow(f"trained with: {name}", [column.get(name) for column in columns])


def _entries(runs: list[Run], differing: dict[str, ConfigRow], color: str) -> list[dict[str, Any]]:
    """The runs in the legend; `shade` is a run's own, or that of its value where a field gives the colours."""
    labels = [row.values for path, row in differing.items() if path != "seed"][:3]
    groups = differing[color].values if color in differing else [str(run.pk) for run in runs]
    shades = {value: shade for shade, value in enumerate(dict.fromkeys(groups))}
    entries = []
    for place, run in enumerate(runs):
        label = ", ".join(str(values[place]) for values in labels) or run.experiment.name
        entries.append({"run": run, "label": label, "shade": shades[groups[place]]})
    return entries


def _results(runs: list[Run]) -> dict[str, Any]:
    """The table of results: loss and evaluations of every run, the best value marked."""
    by_key: dict[str, dict[int, Headline]] = {}
    for headline in Headline.objects.filter(run__in=runs).order_by("id"):
        if matches(headline.key, RESULTS):
            by_key.setdefault(headline.key, {})[headline.run_id] = headline
    best = {key: _best(key, [headline.last for headline in by_run.values()]) for key, by_run in by_key.items()}
    results = []
    for run in runs:
        headlines = {key: by_run.get(run.pk) for key, by_run in by_key.items()}
        cells = [(value, value is not None and value.last == best[key]) for key, value in headlines.items()]
        results.append((run, cells))
    return {"keys": list(by_key), "results": results}


def _best(key: str, values: list[float | None]) -> float | None:
    """The largest score or the smallest loss; none where only one run has a value."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return max(known) if key.startswith("eval/") and "loss" not in key else min(known)
