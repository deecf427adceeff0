"""The runs table: the REST filters behind a page; the address holds the whole state of the view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import F
from django.db.models.expressions import OrderBy
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from experiments.api.paging import Key
from experiments.api.problems import Invalid
from experiments.api.run_filters import OPERATORS, RunQuery, filtered, ordered
from experiments.models import Headline, Param, Project, Run
from experiments.states import State

PAGE_SIZE = 50
MAX_COLUMNS = 24
DEFAULT_METRICS = ("metric.loss/total", "metric.eval/mask_iou", "metric.eval/accuracy")
SIGNS = {"": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥"}
_PLAIN = ("tag", "project", "pool", "experiment")
_OWN = ("cols", "page", "part", "where", "sign", "value")


@dataclass(frozen=True)
class Column:
    """A chosen column: `key` is `param.<path>` or `metric.<series>[:stat]`."""

    key: str

    @property
    def is_metric(self) -> bool:
        return self.key.startswith("metric.")

    @property
    def title(self) -> str:
        return self.key.partition(".")[2]

    @property
    def series(self) -> str:
        return self.title.partition(":")[0]

    @property
    def stat(self) -> str:
        stat = self.title.partition(":")[2] or "last"
        if stat == "best":
            return "max" if self.series.startswith("eval/") and "loss" not in self.series else "min"
        return stat if stat in {"min", "max"} else "last"


@dataclass(frozen=True)
class Chip:
    """One active filter, and the address without it."""

    text: str
    without: str


@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    if request.GET.get("where"):
        return redirect(f"{request.path}?{_with_condition(request.GET)}")
    given = _rest_of(request.GET)
    visible = Run.objects.visible_to(request.user).select_related("experiment", "project", "worker")
    try:
        query = RunQuery.read(given)
        runs, keys = ordered(filtered(visible, query, given.dict()), query.ordering)  # type: ignore[arg-type]
        runs = runs.order_by(*map(_by, keys)).defer("spec", "detail", "experiment__spec")
        problems: list[Any] = []
    except Invalid as error:
        runs, problems = Run.objects.none(), list(error.errors)
    page = Paginator(runs, PAGE_SIZE).get_page(request.GET.get("page"))
    context = _context(request, page) | {"problems": problems}
    part = request.GET.get("part") == "rows"
    response = render(request, "pages/runs_rows.html" if part else "pages/runs.html", context)
    response["X-Next-Poll"] = "2" if any(not run.ended for run in page) else "6"
    return response


def _by(key: Key) -> OrderBy:
    nulls = {"nulls_last": True} if key.nullable else {}  # a plain ORDER BY keeps its index
    return F(key.name).desc(**nulls) if key.descending else F(key.name).asc(**nulls)


def _rest_of(given: QueryDict) -> QueryDict:
    """The parameters that REST knows too; a repeated state becomes a list, as REST writes it."""
    rest = given.copy()
    for name in _OWN:
        rest.pop(name, None)
    for name in list(rest):
        values = [value for value in rest.getlist(name) if value]
        if values:
            rest[name] = ",".join(values) if name in {"state", "experiment"} else values[-1]
        else:
            del rest[name]
    return rest


def _with_condition(given: QueryDict) -> str:
    """The form's three inputs, field, sign and value, as one parameter that REST would understand."""
    rest = given.copy()
    where, sign, value = (rest.pop(name, [""])[-1].strip() for name in ("where", "sign", "value"))
    rest.pop("page", None)
    if where not in _PLAIN and not where.startswith(("param.", "metric.")):
        where = f"param.{where}"
    rest[f"{where}__{sign}" if sign in OPERATORS and where not in _PLAIN else where] = value
    return rest.urlencode()


def _context(request: HttpRequest, page: Page[Run]) -> dict[str, Any]:
    runs = list(page.object_list)
    columns = _columns(request.GET, runs)
    cells = _cells(runs, columns)
    for run in runs:
        run.cells = [(column, cells.get((run.pk, column.key))) for column in columns]  # type: ignore[attr-defined]
    return {
        "page": page,
        "runs": runs,
        "columns": columns,
        "sorts": {column.key: _sort(request.GET, column.key) for column in columns}
        | {name: _sort(request.GET, name) for name in ("id", "state", "step", "created", "seed", "experiment")},
        "chips": _chips(request.GET),
        "states": [(state, state in request.GET.getlist("state")) for state in State],
        "projects": Project.objects.visible_to(request.user).distinct(),
        "choices": _choices(request, runs),
        "signs": SIGNS,
        "carried": [(name, value) for name, value in request.GET.items() if name not in {*_OWN, "state"}],
        "cols": request.GET.get("cols", ""),
        "rows_url": f"{request.path}?{_replaced(request.GET, part='rows')}",
        "pages": {n: f"?{_replaced(request.GET, page=n)}" for n in _near(page)},
    }


def _columns(given: QueryDict, runs: list[Run]) -> list[Column]:
    """What the address asks for; else what differs between the runs shown, and the usual metrics they have."""
    if "cols" in given:
        keys = [key.strip() for key in str(given.get("cols", "")).split(",")]
    else:
        varied = dict.fromkeys(f"param.{path}" for run in runs for path in run.params)
        kept = Headline.objects.filter(run__in=runs, key__in=[m.partition(".")[2] for m in DEFAULT_METRICS])
        have = set(kept.values_list("key", flat=True)) if runs else set()
        keys = [*varied, *(metric for metric in DEFAULT_METRICS if metric.partition(".")[2] in have)]
    return [Column(key) for key in dict.fromkeys(keys) if key.startswith(("param.", "metric."))][:MAX_COLUMNS]


def _cells(runs: list[Run], columns: list[Column]) -> dict[tuple[int, str], Any]:
    """Two queries for the whole table, however many rows and columns."""
    ids = [run.pk for run in runs]
    metrics = [column for column in columns if column.is_metric]
    params = {column.title: column.key for column in columns if not column.is_metric}
    found: dict[tuple[int, str], Any] = {}
    if params:
        rows = Param.objects.filter(run_id__in=ids, key__in=params).values_list("run_id", "key", "text")
        found |= {(run, params[key]): text for run, key, text in rows}
    if metrics:
        heads = Headline.objects.filter(run_id__in=ids, key__in={column.series for column in metrics})
        for head in heads:
            found |= {(head.run_id, c.key): getattr(head, c.stat) for c in metrics if c.series == head.key}
    return found


def _sort(given: QueryDict, key: str) -> dict[str, str]:
    """Where a click on a column's head leads, and how the table stands now."""
    now = given.get("ordering", "-id")
    turned = key if now == f"-{key}" else f"-{key}"
    state = {key: "ascending", f"-{key}": "descending"}.get(now, "")
    return {"url": f"?{_replaced(given, ordering=turned, page=None)}", "now": state}


def _chips(given: QueryDict) -> list[Chip]:
    chips = []
    for name, value in given.items():
        if name.startswith(("param.", "metric.")) or name in _PLAIN:
            field, _, operator = name.partition("__")
            text = f"{field.removeprefix('param.').removeprefix('metric.')} {SIGNS.get(operator, operator)} {value}"
            chips.append(Chip(text, f"?{_replaced(given, **{name: None, 'page': None})}"))
    return chips


def _choices(request: HttpRequest, runs: list[Run]) -> list[str]:
    """Fields worth offering in the filter and as columns: those of the runs on this page."""
    ids = [run.pk for run in runs[:10]]
    params = Param.objects.filter(run_id__in=ids).values_list("key", flat=True).distinct()
    metrics = Headline.objects.filter(run_id__in=ids).values_list("key", flat=True).distinct()
    return [*(f"param.{key}" for key in sorted(set(params))), *(f"metric.{key}" for key in sorted(set(metrics)))]


def _replaced(given: QueryDict, **changes: Any) -> str:
    """The query string with some parameters changed, or left out where the change is None."""
    pairs = [(name, value) for name, values in given.lists() for value in values if name not in {*changes, "part"}]
    return urlencode([*pairs, *((name, value) for name, value in changes.items() if value is not None)])


def _near(page: Page[Run]) -> list[int]:
    last = page.paginator.num_pages
    return [n for n in sorted({1, 2, page.number - 1, page.number, page.number + 1, last}) if 1 <= n <= last]
