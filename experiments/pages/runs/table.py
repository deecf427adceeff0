"""The runs table: a page over REST's filters; the address holds the whole state of the view."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.views.decorators.http import require_safe
from pydantic import Field

from experiments import run_search
from experiments.api.http.problems import Invalid
from experiments.api.runs import paging as run_paging
from experiments.api.runs.filters import RunFilters, RunQuery, conditions
from experiments.api.runs.names import check_columns
from experiments.models import Headline, Param, Project, Run
from experiments.pages.http.address import Address, problems_of, refuse, refuse_all, takes
from experiments.pages.http.polling import polled
from experiments.states import State

PAGE_SIZE = 50
COUNTED = 10_000  # beyond this many the page says "more than"
MAX_COLUMNS = 24
DEFAULT_METRICS = ("metric.loss/total", "metric.eval/mask_iou", "metric.eval/accuracy")
SIGNS = {"": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥"}
SORTED = ("id", "state", "step", "created", "seed", "experiment")
_PLAIN = ("tag", "project", "pool", "experiment")
_OWN = ("cols", "part", "where", "sign", "value")


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
class RunsPage:
    """One page of the table; `next` and `previous` are cursors, None where there is no such page."""

    runs: list[Run] = field(default_factory=list)
    count: int = 0
    next: str | None = None
    previous: str | None = None

    @property
    def uncounted(self) -> bool:
        return self.count > COUNTED


class RunsAddress(Address, RunFilters):
    """REST's filters, the columns, and one filter as three inputs."""

    repeated = ("state", "experiment")
    cursor: str | None = Field(None, max_length=2000)
    cols: str | None = None
    part: Literal["rows"] | None = None
    where: str | None = None
    sign: str | None = None
    value: str | None = None


@takes(RunsAddress)
@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    if request.GET.get("where"):
        return redirect(f"{request.path}?{_with_condition(request.GET)}")
    if request.GET.get("sign") or request.GET.get("value"):
        refuse(request, "sign", "needs a field: name it in 'where'")
    page = RunsPage()
    try:
        check_columns(_listed_columns(request.GET), request.user)  # type: ignore[arg-type]
        page = page if problems_of(request) else _page(request, _rest_parameters(request.GET))
    except Invalid as error:
        refuse_all(request, error)
    context = _context(request, page)
    part = request.GET.get("part") or "page"
    live = any(not run.ended for run in page.runs)
    return polled(request, f"pages/run_table/{part}.html", context, 2 if live else 6)


def _page(request: HttpRequest, given: QueryDict) -> RunsPage:
    """One page of the runs, from the search that REST uses."""
    query = RunQuery.read(given).model_copy(update={"limit": PAGE_SIZE})
    wanted: dict[str, str] = given.dict()  # type: ignore[assignment]
    page = run_paging.page(query, wanted, request.user)  # type: ignore[arg-type]
    rows = Run.objects.select_related("experiment", "project", "worker").defer("spec", "detail", "experiment__spec")
    by_id = rows.in_bulk(page.ids)
    count = len(page.ids)
    if query.cursor or page.next:
        count = run_search.count(conditions(query, wanted, request.user), COUNTED + 1)  # type: ignore[arg-type]
    return RunsPage([by_id[pk] for pk in page.ids if pk in by_id], count, page.next, page.previous)


def _rest_parameters(given: QueryDict) -> QueryDict:
    """The parameters that REST has too; a repeated state becomes a list, as in REST."""
    rest = given.copy()
    for name in _OWN:
        rest.pop(name, None)
    for name in list(rest):
        values = [value for value in rest.getlist(name) if value]
        if values:
            rest.setlist(name, [",".join(values)] if name in {"state", "experiment"} else values)
        else:
            del rest[name]
    return rest


def _with_condition(given: QueryDict) -> str:
    """The form's three inputs, field, sign and value, as one parameter of REST."""
    rest = given.copy()
    where, sign, value = (rest.pop(name, [""])[-1].strip() for name in ("where", "sign", "value"))
    rest.pop("cursor", None)
    if where not in _PLAIN and not where.startswith(("param.", "metric.")):
        where = f"param.{where}"
    rest[f"{where}__{sign}" if sign else where] = value
    return rest.urlencode()


def _context(request: HttpRequest, page: RunsPage) -> dict[str, Any]:
    runs = page.runs
    columns = _columns(request.GET, runs)
    cells = _cells(runs, columns)
    for run in runs:
        run.cells = [(column, cells.get((run.pk, column.key))) for column in columns]  # type: ignore[attr-defined]
    return {
        "page": page,
        "counted": COUNTED,
        "runs": runs,
        "columns": columns,
        "sorts": {key: _sort(request.GET, key) for key in [*SORTED, *(column.key for column in columns)]},
        "chips": _chips(request.GET),
        "states": [(state, state in request.GET.getlist("state")) for state in State],
        "projects": Project.objects.visible_to(request.user).distinct(),
        "choices": _choices(request, runs),
        "signs": SIGNS,
        "carried": _carried(request.GET),
        "cols": request.GET.get("cols", ""),
        "column_keys": request.GET.get("cols") or ", ".join(column.key for column in columns),
        "rows_url": f"{request.path}?{_replaced(request.GET, part='rows')}",
        "first": f"?{_replaced(request.GET, cursor=None)}",
        "earlier": page.previous and f"?{_replaced(request.GET, cursor=page.previous)}",
        "later": page.next and f"?{_replaced(request.GET, cursor=page.next)}",
    }


def _carried(given: QueryDict) -> list[tuple[str, Any]]:
    """The parameters that the forms above the table send on as hidden inputs."""
    return [(name, value) for name, value in given.items() if name not in {*_OWN, "state", "cursor"}]


def _columns(given: QueryDict, runs: list[Run]) -> list[Column]:
    """The columns of the address; else the fields that the shown runs vary, and the default metrics they have."""
    keys = _listed_columns(given) if "cols" in given else _default_columns(runs)
    return [Column(key) for key in dict.fromkeys(keys) if key.startswith(("param.", "metric."))][:MAX_COLUMNS]


def _default_columns(runs: list[Run]) -> list[str]:
    varied = [f"param.{path}" for run in runs for path in run.params]
    series = {metric.removeprefix("metric."): metric for metric in DEFAULT_METRICS}
    recorded = set(Headline.objects.filter(run__in=runs, key__in=series).values_list("key", flat=True)) if runs else ()
    return [*varied, *(metric for name, metric in series.items() if name in recorded)]


def _listed_columns(given: QueryDict) -> list[str]:
    return [key for part in given.get("cols", "").split(",") if (key := part.strip())]


def _cells(runs: list[Run], columns: list[Column]) -> dict[tuple[int, str], Any]:
    """Two queries for the whole table, however many rows and columns."""
    cells: dict[tuple[int, str], Any] = {}
    params = {column.title: column.key for column in columns if not column.is_metric}
    if params:
        rows = Param.objects.filter(run__in=runs, key__in=params).values_list("run_id", "key", "text")
        cells = {(run, params[key]): text for run, key, text in rows}
    metrics: dict[str, list[Column]] = {}
    for column in columns:
        if column.is_metric:
            metrics.setdefault(column.series, []).append(column)
    for headline in Headline.objects.filter(run__in=runs, key__in=metrics) if metrics else ():
        for column in metrics[headline.key]:
            cells[headline.run_id, column.key] = getattr(headline, column.stat)
    return cells


def _sort(given: QueryDict, key: str) -> dict[str, str]:
    """The link of a column's heading, and the column's present order."""
    ordering = given.get("ordering", "-id")
    reversed_ = key if ordering == f"-{key}" else f"-{key}"
    state = {key: "ascending", f"-{key}": "descending"}.get(ordering, "")
    return {"url": f"?{_replaced(given, ordering=reversed_, cursor=None)}", "now": state}


def _chips(given: QueryDict) -> list[dict[str, str]]:
    """The active filters, each with the address without it."""
    chips = []
    for name, value in given.items():
        if name.startswith(("param.", "metric.")) or name.partition("__")[0] in _PLAIN:
            field, _, operator = name.partition("__")
            text = f"{field.removeprefix('param.').removeprefix('metric.')} {SIGNS.get(operator, operator)} {value}"
            chips.append({"text": text, "without": f"?{_replaced(given, **{name: None, 'cursor': None})}"})
    return chips


def _choices(request: HttpRequest, runs: list[Run]) -> list[str]:
    """Fields to offer in the filter and as columns: those of the runs on this page."""
    ids = [run.pk for run in runs[:10]]
    params = Param.objects.filter(run_id__in=ids).values_list("key", flat=True).distinct()
    metrics = Headline.objects.filter(run_id__in=ids).values_list("key", flat=True).distinct()
    return [*(f"param.{key}" for key in sorted(set(params))), *(f"metric.{key}" for key in sorted(set(metrics)))]


def _replaced(given: QueryDict, **changes: Any) -> str:
    """The query string with some parameters changed, or left out where the change is None."""
    pairs = [(name, value) for name, values in given.lists() for value in values if name not in {*changes, "part"}]
    return urlencode([*pairs, *((name, value) for name, value in changes.items() if value is not None)])
