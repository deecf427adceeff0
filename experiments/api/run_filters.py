"""The runs table's questions: fixed filters, and the families `param.<path>` and `metric.<series>`.

Families are answered from the side tables `Param` and `Headline`, each on its own index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from django.db.models import F, FilteredRelation, Q
from pydantic import Field

from experiments.models import Headline, Param
from experiments.models.runs import RunQuerySet
from experiments.states import State

from . import run_rows
from .paging import Key
from .problems import Invalid
from .query import Moment, Names, Paged, RowIds, finite
from .tags import HasTag

OPERATORS = ("ne", "lt", "lte", "gt", "gte")
STATS = ("last", "min", "max", "best")
SORTABLE = {
    "id": Key("pk"),
    "created": Key("created"),
    "started": Key("started", nullable=True),
    "finished": Key("finished", nullable=True),
    "state": Key("state"),
    "step": Key("committed_step"),
    "experiment": Key("experiment_id"),
    "seed": Key("seed"),
    "priority": Key("priority"),
}


class RunQuery(Paged):
    """Filters, order and columns of the runs table."""

    experiment: RowIds | None = Field(None, description="experiment ids, separated by commas")
    project: str | None = Field(None, max_length=64, description="a project's name")
    state: Names | None = Field(None, description="states, separated by commas")
    tag: str | None = Field(None, max_length=50, description="a tag of the experiment")
    pool: str | None = Field(None, max_length=32)
    created__gte: Moment | None = None
    created__gt: Moment | None = None
    created__lte: Moment | None = None
    created__lt: Moment | None = None
    ordering: str = Field(
        "-id", max_length=300, description=f"{', '.join(SORTABLE)}, param.<path> or metric.<series>; - turns it round"
    )
    fields: Names | None = Field(None, description="fields to answer, separated by commas")

    @classmethod
    def free_prefixes(cls) -> tuple[str, ...]:
        return ("param.", "metric.")

    def columns(self) -> list[run_rows.Field]:
        """What each row shows. Raises Invalid on a field that does not exist."""
        for name in self.fields or []:
            if name not in run_rows.FIELDS:
                raise Invalid.at("fields", f"there is no field '{name}'; known: {', '.join(run_rows.FIELDS)}")
        light = [field for field in run_rows.FIELDS if field not in run_rows.HEAVY]
        return [field for field in run_rows.FIELDS if field in self.fields] if self.fields else light


def filtered(runs: RunQuerySet, query: RunQuery, given: Mapping[str, str]) -> RunQuerySet:
    """The runs that every filter lets through."""
    runs = _fixed(runs, query)
    for key, value in given.items():
        if key.startswith("param."):
            runs = runs.filter(pk__in=_params(key, value))
        elif key.startswith("metric."):
            runs = runs.filter(pk__in=_metrics(key, value))
    return runs


def ordered(runs: RunQuerySet, ordering: str) -> tuple[RunQuerySet, list[Key]]:
    """The runs with what the keys need, and the keys; the id decides between equals."""
    descending, name = ordering.startswith("-"), ordering.removeprefix("-")
    if name.startswith("metric."):
        runs, keys = _by_metric(runs, name)
    elif name.startswith("param."):
        runs, keys = _by_param(runs, name)
    elif name in SORTABLE:
        keys = [SORTABLE[name]]
    else:
        raise Invalid.at("ordering", f"cannot order by '{name}'; known: {', '.join(SORTABLE)}, param.…, metric.…")
    turned = [Key(key.name, descending, key.nullable) for key in keys]
    return runs, turned if turned[-1].name == "pk" else [*turned, Key("pk", descending=True)]


def _fixed(runs: RunQuerySet, query: RunQuery) -> RunQuerySet:
    moments = {name: getattr(query, name) for name in RunQuery.model_fields if name.startswith("created__")}
    wanted: dict[str, Any] = {name: moment for name, moment in moments.items() if moment is not None}
    if query.experiment:
        wanted["experiment_id__in"] = query.experiment
    if query.project:
        wanted["project__name"] = query.project
    if query.pool:
        wanted["pool"] = query.pool
    if query.state:
        wanted["state__in"] = [_state(name) for name in query.state]
    runs = runs.filter(**wanted)
    return runs.filter(HasTag("experiment__tags", query.tag)) if query.tag else runs


def _state(name: str) -> State:
    try:
        return State(name)
    except ValueError:
        raise Invalid.at("state", f"there is no state '{name}'; known: {', '.join(State)}") from None


@dataclass(frozen=True)
class Asked:
    """One `param.…` or `metric.…` parameter, taken apart."""

    name: str
    stat: Literal["last", "min", "max"]
    operator: str


def _taken_apart(key: str, family: str) -> Asked:
    name, _, operator = key.removeprefix(family).partition("__")
    if operator and operator not in OPERATORS:
        raise Invalid.at(key, f"'__{operator}' is not a comparison; known: {', '.join('__' + op for op in OPERATORS)}")
    stat = "last"
    if family == "metric.":
        name, _, stat = name.partition(":")
        stat = _stat(name, stat or "last", key)
    if not name:
        raise Invalid.at(key, "names nothing")
    return Asked(name, stat, operator)  # type: ignore[arg-type]


def _stat(series: str, stat: str, at: str) -> str:
    if stat not in STATS:
        raise Invalid.at(at, f"':{stat}' is not a headline value; known: {', '.join(':' + s for s in STATS)}")
    if stat != "best":
        return stat
    higher_is_better = series.startswith("eval/") and "loss" not in series
    return "max" if higher_is_better else "min"


def _params(key: str, value: str) -> Any:
    asked, number = _taken_apart(key, "param."), finite(value)
    rows = Param.objects.filter(key=asked.name)
    if asked.operator in ("", "ne"):
        same = Q(text=value) if number is None else Q(text=value) | Q(number=number)
        return (rows.exclude(same) if asked.operator else rows.filter(same)).values("run_id")
    return rows.filter(**{f"number__{asked.operator}": _number(key, number)}).values("run_id")


def _metrics(key: str, value: str) -> Any:
    asked = _taken_apart(key, "metric.")
    number = _number(key, finite(value))
    rows = Headline.objects.filter(key=asked.name, **{f"{asked.stat}__isnull": False})
    if asked.operator == "ne":
        return rows.exclude(**{asked.stat: number}).values("run_id")
    lookup = f"{asked.stat}__{asked.operator}" if asked.operator else asked.stat
    return rows.filter(**{lookup: number}).values("run_id")


def _number(key: str, number: float | None) -> float:
    if number is None:
        raise Invalid.at(key, "compare with a finite number")
    return number


def _by_metric(runs: RunQuerySet, name: str) -> tuple[RunQuerySet, list[Key]]:
    asked = _plain("metric.", name)
    joined = runs.annotate(sort_row=FilteredRelation("headlines", condition=Q(headlines__key=asked.name)))
    return joined.annotate(sort_metric=F(f"sort_row__{asked.stat}")), [Key("sort_metric", nullable=True)]


def _by_param(runs: RunQuerySet, name: str) -> tuple[RunQuerySet, list[Key]]:
    """Numbers by size, then the rest by text."""
    asked = _plain("param.", name)
    joined = runs.annotate(sort_row=FilteredRelation("param_rows", condition=Q(param_rows__key=asked.name)))
    joined = joined.annotate(sort_number=F("sort_row__number"), sort_text=F("sort_row__text"))
    return joined, [Key("sort_number", nullable=True), Key("sort_text", nullable=True)]


def _plain(family: str, name: str) -> Asked:
    try:
        asked = _taken_apart(name, family)
    except Invalid as error:
        raise Invalid.at("ordering", error.errors[0].message) from None
    if asked.operator:
        raise Invalid.at("ordering", f"'__{asked.operator}' compares; it cannot order")
    return asked
