"""The filters of the runs table: fixed ones, and the families `param.<path>` and `metric.<series>`.

They become conditions and an order of `experiments.run_search`, each answered by its own index.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib.auth.models import AbstractBaseUser
from pydantic import Field

from experiments.api.http.names import check_experiments, check_project
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Moment, Names, Paged, Query, RowIds
from experiments.api.http.tags import HasTag
from experiments.models import Experiment, Param, Project, Run
from experiments.run_search import Condition, Order, OrderSection, by_id, by_value, visible
from experiments.spec.errors import did_you_mean
from experiments.states import State

from . import rows as run_rows
from .families import OPERATORS, metric_condition, metric_order, param_condition, param_order

__all__ = ["OPERATORS", "SORTABLE", "RunFilters", "RunQuery", "conditions", "order"]

# What `ordering` may name besides metrics and parameters → the column, and whether it can be null.
SORTABLE = {
    "id": ("pk", False),
    "created": ("created", False),
    "started": ("started", True),
    "finished": ("finished", True),
    "state": ("state", False),
    "step": ("committed_step", False),
    "experiment": ("experiment_id", False),
    "seed": ("seed", False),
    "priority": ("priority", False),
}


_CREATED = {"created__gte", "created__gt", "created__lte", "created__lt"}


class RunFilters(Query):
    """Filters and order of the runs table."""

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
        "-id", max_length=300, description=f"{', '.join(SORTABLE)}, param.<path> or metric.<series>; - reverses it"
    )

    @classmethod
    def free_prefixes(cls) -> tuple[str, ...]:
        return ("param.", "metric.")


class RunQuery(RunFilters, Paged):
    """Filters, order and columns of the runs table, page by page."""

    fields: Names | None = Field(None, description="fields of each row, separated by commas")

    def columns(self) -> list[run_rows.Field]:
        """The fields of each row. Raises Invalid on an unknown field."""
        for name in self.fields or []:
            if name not in run_rows.FIELDS:
                hint = did_you_mean(name, run_rows.FIELDS) or f"; known: {', '.join(run_rows.FIELDS)}"
                raise Invalid.at("fields", f"there is no field '{name}'{hint}")
        light = [field for field in run_rows.FIELDS if field not in run_rows.HEAVY]
        return [field for field in run_rows.FIELDS if field in self.fields] if self.fields else light


def conditions(query: RunQuery, given: Mapping[str, str], user: AbstractBaseUser) -> list[Condition]:
    """Every filter, those that usually leave few runs first, and what the user may see. Raises Invalid."""
    check_project(query.project, user)
    check_experiments(query.experiment or [], user)
    return [*_fixed(query), *_families(given), *visible(user)]


def order(ordering: str) -> Order:
    """The order that `ordering` names. Raises Invalid on an unknown one."""
    descending, name = ordering.startswith("-"), ordering.removeprefix("-")
    if name.startswith("metric."):
        return metric_order(name, descending)
    if name.startswith("param."):
        return param_order(name, descending)
    if name not in SORTABLE:
        hint = did_you_mean(name, SORTABLE) or f"; known: {', '.join(SORTABLE)}, param.…, metric.…"
        raise Invalid.at("ordering", f"cannot order by '{name}'{hint}")
    column, nullable = SORTABLE[name]
    if column == "pk":
        return by_id(descending=descending)
    if nullable:
        have = Run.objects.filter(**{f"{column}__isnull": False})
        return by_value(name, OrderSection(have, "pk", column), descending=descending)
    return Order(name, descending, (OrderSection(Run.objects.all(), "pk", column),))


def _fixed(query: RunQuery) -> list[Condition]:
    conditions = []
    if query.experiment:
        conditions.append(_runs(len(query.experiment) == 1, experiment_id__in=query.experiment))
    if query.tag:
        tagged = Experiment.objects.filter(HasTag("tags", query.tag)).order_by()
        conditions.append(_runs(experiment_id__in=tagged.values("pk")))
    if query.project:
        named = list(Project.objects.filter(name=query.project).values_list("pk", flat=True))
        conditions.append(_runs(True, project_id__in=named))
    if query.state:
        conditions.append(_runs(len(query.state) == 1, state__in=list(map(_state, query.state))))
    if query.pool:
        conditions.append(Condition(Param.objects.filter(key="resources.pool", text=query.pool), in_order=True))
    if moments := query.model_dump(include=_CREATED, exclude_none=True):
        conditions.append(_runs(**moments))
    return conditions


def _families(given: Mapping[str, str]) -> list[Condition]:
    """The conditions of `param.…` and `metric.…`; other parameters are not read here."""
    known = {"param": param_condition, "metric": metric_condition}
    return [known[family](key, value) for key, value in given.items() if (family := _family(key)) in known]


def _family(key: str) -> str:
    family, dot, _ = key.partition(".")
    return family if dot else ""


def _runs(in_order: bool = False, **wanted: object) -> Condition:
    return Condition(Run.objects.filter(**wanted), "pk", in_order)


def _state(name: str) -> State:
    try:
        return State(name)
    except ValueError:
        hint = did_you_mean(name, State) or f"; known: {', '.join(State)}"
        raise Invalid.at("state", f"there is no state '{name}'{hint}") from None
