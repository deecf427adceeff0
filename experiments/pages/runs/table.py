"""The runs table: the REST filters behind a page; the address holds the whole state of the view."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe
from pydantic import Field

from experiments import run_search
from experiments.api.http.problems import Invalid
from experiments.api.runs import paging as run_paging
from experiments.api.runs.filters import RunFilters, RunQuery, conditions
from experiments.api.runs.names import check_columns
from experiments.models import Headline, Param, Project, Run
from experiments.pages.http.address import Address, problems_of, refuse, takes, tell
from experiments.states import State

PAGE_SIZE = 50
COUNTED = 10_000  # beyond this many the page says "more than"
MAX_COLUMNS = 24
DEFAULT_METRICS = ("metric.loss/total", "metric.eval/mask_iou", "metric.eval/accuracy")
SIGNS = {"": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥"}
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
class Chip:
    """One active filter, and the address without it."""

    text: str
    without: str


@dataclass(frozen=True)
class Found:
    """One page of the table; `next` and `previous` are cursors, None where there is no such page."""

    runs: list[Run] = field(default_factory=list)
    count: int = 0
    next: str | None = None
    previous: str | None = None

    @property
    def uncounted(self) -> bool:
        return self.count > COUNTED


class RunsAddress(Address, RunFilters):
    """What the table takes from its address: REST's filters, the columns, and one filter as three inputs."""

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
        refuse(request, "sign", "compares nothing: name a field in 'where'")
    given = _rest_of(request.GET)
    found = Found()
    try:
        check_columns(_asked_columns(request.GET), request.user)  # type: ignore[arg-type]
        found = found if problems_of(request) else _find(request, given)
    except Invalid as error:
        tell(request, error)
    context = _context(request, found)
    part = request.GET.get("part") == "rows"
    response = render(request, "pages/run_table/rows.html" if part else "pages/run_table/page.html", context)
    response["X-Next-Poll"] = "2" if any(not run.ended for run in found.runs) else "6"
    return response


def _find(request: HttpRequest, given: QueryDict) -> Found:
    """One page of the runs, by the same search that REST uses."""
    query = RunQuery.read(given).model_copy(update={"limit": PAGE_SIZE})
    wanted: dict[str, str] = given.dict()  # type: ignore[assignment]
    page = run_paging.page(query, wanted, request.user)  # type: ignore[arg-type]
    rows = Run.objects.select_related("experiment", "project", "worker").defer("spec", "detail", "experiment__spec")
    by_id = rows.in_bulk(page.ids)
    alone = query.cursor is None and page.next is None
    count = (
        len(page.ids) if alone else run_search.count(conditions(query, wanted, request.user), COUNTED + 1)  # type: ignore[arg-type]
    )
    return Found([by_id[pk] for pk in page.ids if pk in by_id], count, page.next, page.previous)


def _rest_of(given: QueryDict) -> QueryDict:
    """The parameters that REST knows too; a repeated state becomes a list, as REST writes it."""
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
    """The form's three inputs, field, sign and value, as one parameter that REST would understand."""
    rest = given.copy()
    where, sign, value = (rest.pop(name, [""])[-1].strip() for name in ("where", "sign", "value"))
    rest.pop("cursor", None)
    if where not in _PLAIN and not where.startswith(("param.", "metric.")):
        where = f"param.{where}"
    rest[f"{where}__{sign}" if sign else where] = value
    return rest.urlencode()


def _context(request: HttpRequest, found: Found) -> dict[str, Any]:
    runs = found.runs
    columns = _columns(request.GET, runs)
    cells = _cells(runs, columns)
    for run in runs:
        run.cells = [(column, cells.get((run.pk, column.key))) for column in columns]  # type: ignore[attr-defined]
    return {
        "found": found,
        "counted": COUNTED,
        "runs": runs,
        "columns": columns,
        "sorts": {column.key: _sort(request.GET, column.key) for column in columns}
        | {name: _sort(request.GET, name) for name in ("id", "state", "step", "created", "seed", "experiment")},
        "chips": _chips(request.GET),
        "states": [(state, state in request.GET.getlist("state")) for state in State],
        "projects": Project.objects.visible_to(request.user).distinct(),
        "choices": _choices(request, runs),
        "signs": SIGNS,
        "carried": [(name, value) for name, value in request.GET.items() if name not in {*_OWN, "state", "cursor"}],
        "cols": request.GET.get("cols", ""),
        "column_keys": request.GET.get("cols") or ", ".join(column.key for column in columns),
        "rows_url": f"{request.path}?{_replaced(request.GET, part='rows')}",
        "first": f"?{_replaced(request.GET, cursor=None)}",
        "earlier": found.previous and f"?{_replaced(request.GET, cursor=found.previous)}",
        "later": found.next and f"?{_replaced(request.GET, cursor=found.next)}",
    }


def _columns(given: QueryDict, runs: list[Run]) -> list[Column]:
    """What the address asks for; else what differs between the runs shown, and the usual metrics they have."""
    if "cols" in given:
        keys = _asked_columns(given)
    else:
        varied = dict.fromkeys(f"param.{path}" for run in runs for path in run.params)
        kept = Headline.objects.filter(run__in=runs, key__in=[m.partition(".")[2] for m in DEFAULT_METRICS])
        have = set(kept.values_list("key", flat=True)) if runs else set()
        keys = [*varied, *(metric for metric in DEFAULT_METRICS if metric.partition(".")[2] in have)]
    return [Column(key) for key in dict.fromkeys(keys) if key.startswith(("param.", "metric."))][:MAX_COLUMNS]


def _asked_columns(given: QueryDict) -> list[str]:
    return [key for part in given.get("cols", "").split(",") if (key := part.strip())]


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
    return {"url": f"?{_replaced(given, ordering=turned, cursor=None)}", "now": state}


def _chips(given: QueryDict) -> list[Chip]:
    chips = []
    for name, value in given.items():
        if name.startswith(("param.", "metric.")) or name.partition("__")[0] in _PLAIN:
            field, _, operator = name.partition("__")
            text = f"{field.removeprefix('param.').removeprefix('metric.')} {SIGNS.get(operator, operator)} {value}"
            chips.append(Chip(text, f"?{_replaced(given, **{name: None, 'cursor': None})}"))
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
