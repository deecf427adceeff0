"""The parameters `param.<path>` and `metric.<series>`: what they compare, each answered by one index."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from django.db.models import QuerySet

from experiments.api.http.problems import Invalid
from experiments.api.http.query import finite
from experiments.models import Headline, Param
from experiments.run_search import Condition, Order, OrderSection, by_value

OPERATORS = ("ne", "lt", "lte", "gt", "gte")
STATS = ("last", "min", "max", "best")


@dataclass(frozen=True)
class FieldFilter:
    """One `param.…` or `metric.…` parameter, parsed."""

    name: str
    stat: Literal["last", "min", "max"]
    operator: str


def parse_key(key: str, family: str) -> FieldFilter:
    """Raises Invalid on an unknown comparison or headline value."""
    name, _, operator = key.removeprefix(family).partition("__")
    if operator and operator not in OPERATORS:
        close = get_close_matches(operator, OPERATORS, n=1, cutoff=0.3)
        hint = f"; did you mean '__{close[0]}'?" if close else ""
        known = ", ".join(f"__{known_operator}" for known_operator in OPERATORS)
        raise Invalid.at(key, f"'__{operator}' is not a comparison; known: {known}{hint}")
    stat = "last"
    if family == "metric.":
        name, _, stat = name.partition(":")
        stat = _stat(name, stat or "last", key)
    if not name:
        raise Invalid.at(key, f"the name is missing: write {family}<name>")
    return FieldFilter(name, stat, operator)  # type: ignore[arg-type]


def _stat(series: str, stat: str, key: str) -> str:
    if stat not in STATS:
        raise Invalid.at(key, f"':{stat}' is not a headline value; known: {', '.join(':' + s for s in STATS)}")
    if stat != "best":
        return stat
    higher_is_better = series.startswith("eval/") and "loss" not in series
    return "max" if higher_is_better else "min"


def parse_ordering_key(name: str) -> FieldFilter:
    """The same for `ordering=`, which has no comparison."""
    try:
        parsed = parse_key(name, name.partition(".")[0] + ".")
    except Invalid as error:
        raise Invalid.at("ordering", error.errors[0].message) from None
    if parsed.operator:
        raise Invalid.at("ordering", f"remove '__{parsed.operator}': an ordering has no comparison")
    return parsed


def param_condition(key: str, value: str) -> Condition:
    """Equality compares numbers where the parameter has that number in some run, so that 1e-3 matches 0.001."""
    parsed, number = parse_key(key, "param."), finite(value)
    rows = Param.objects.filter(key=parsed.name)
    if parsed.operator not in ("", "ne"):
        return Condition(rows.filter(**{f"number__{parsed.operator}": _number(key, number)}))
    same = {"text": value}
    if number is not None and _any(rows.filter(number=number)):
        same = {"number": number}  # type: ignore[dict-item]
    return Condition(rows.exclude(**same)) if parsed.operator else Condition(rows.filter(**same), in_order=True)


def metric_condition(key: str, value: str) -> Condition:
    parsed = parse_key(key, "metric.")
    number, stat = _number(key, finite(value)), parsed.stat
    rows = Headline.objects.filter(key=parsed.name, **{f"{stat}__isnull": False})
    if parsed.operator == "ne":
        return Condition(rows.exclude(**{stat: number}))
    if not parsed.operator:
        return Condition(rows.filter(**{stat: number}), in_order=True)
    return Condition(rows.filter(**{f"{stat}__{parsed.operator}": number}))


def metric_order(name: str, descending: bool) -> Order:
    parsed = parse_ordering_key(name)
    rows = Headline.objects.filter(key=parsed.name, **{f"{parsed.stat}__isnull": False})
    return by_value(f"metric.{parsed.name}:{parsed.stat}", OrderSection(rows, value=parsed.stat), descending=descending)


def param_order(name: str, descending: bool) -> Order:
    """Numbers by value, then the rest by text."""
    rows = Param.objects.filter(key=parse_ordering_key(name).name)
    sections = [OrderSection(rows.filter(number__isnull=False), value="number")]
    texts = rows.filter(number__isnull=True)
    if _any(texts):  # rarely both: else the index on texts would be read in vain
        sections.append(OrderSection(texts, value="text"))
    return by_value(name, *sections, descending=descending)


def _any(rows: QuerySet[Param]) -> bool:
    """Ordered like the index: otherwise PostgreSQL expects such a row soon and reads the whole table."""
    return bool(rows.order_by("number", "run_id").values_list("pk")[:1])


def _number(key: str, number: float | None) -> float:
    if number is None:
        raise Invalid.at(key, "must be a finite number")
    return number
