"""The families `param.<path>` and `metric.<series>`: what they compare, and by which one index it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from django.db.models import QuerySet

from experiments.api.http.problems import Invalid
from experiments.api.http.query import finite
from experiments.models import Headline, Param
from experiments.run_search import Condition, Order, Section, by_value

OPERATORS = ("ne", "lt", "lte", "gt", "gte")
STATS = ("last", "min", "max", "best")


@dataclass(frozen=True)
class FieldFilter:
    """One `param.…` or `metric.…` parameter, taken apart."""

    name: str
    stat: Literal["last", "min", "max"]
    operator: str


def parse_key(key: str, family: str) -> FieldFilter:
    """Raises Invalid on a comparison or headline value that does not exist."""
    name, _, operator = key.removeprefix(family).partition("__")
    if operator and operator not in OPERATORS:
        close = get_close_matches(operator, OPERATORS, n=1, cutoff=0.3)
        hint = f"; did you mean '__{close[0]}'?" if close else ""
        known = ", ".join(f"__{one}" for one in OPERATORS)
        raise Invalid.at(key, f"'__{operator}' is not a comparison; known: {known}{hint}")
    stat = "last"
    if family == "metric.":
        name, _, stat = name.partition(":")
        stat = _stat(name, stat or "last", key)
    if not name:
        raise Invalid.at(key, "names nothing")
    return FieldFilter(name, stat, operator)  # type: ignore[arg-type]


def _stat(series: str, stat: str, at: str) -> str:
    if stat not in STATS:
        raise Invalid.at(at, f"':{stat}' is not a headline value; known: {', '.join(':' + s for s in STATS)}")
    if stat != "best":
        return stat
    higher_is_better = series.startswith("eval/") and "loss" not in series
    return "max" if higher_is_better else "min"


def parse_ordering_key(name: str) -> FieldFilter:
    """The same for `ordering=`, which compares nothing."""
    try:
        asked = parse_key(name, name.partition(".")[0] + ".")
    except Invalid as error:
        raise Invalid.at("ordering", error.errors[0].message) from None
    if asked.operator:
        raise Invalid.at("ordering", f"'__{asked.operator}' compares; it cannot order")
    return asked


def param_condition(key: str, value: str) -> Condition:
    """Equality goes by number where the parameter has that number in some run, so that 1e-3 finds 0.001."""
    asked, number = parse_key(key, "param."), finite(value)
    rows = Param.objects.filter(key=asked.name)
    if asked.operator not in ("", "ne"):
        return Condition(rows.filter(**{f"number__{asked.operator}": _number(key, number)}))
    same = {"text": value}
    if number is not None and _any(rows.filter(number=number)):
        same = {"number": number}  # type: ignore[dict-item]
    return Condition(rows.exclude(**same)) if asked.operator else Condition(rows.filter(**same), in_order=True)


def metric_condition(key: str, value: str) -> Condition:
    asked = parse_key(key, "metric.")
    number = _number(key, finite(value))
    rows = Headline.objects.filter(key=asked.name, **{f"{asked.stat}__isnull": False})
    if asked.operator == "ne":
        return Condition(rows.exclude(**{asked.stat: number}))
    if not asked.operator:
        return Condition(rows.filter(**{asked.stat: number}), in_order=True)
    return Condition(rows.filter(**{f"{asked.stat}__{asked.operator}": number}))


def metric_order(name: str, descending: bool) -> Order:
    asked = parse_ordering_key(name)
    rows = Headline.objects.filter(key=asked.name, **{f"{asked.stat}__isnull": False})
    return by_value(f"metric.{asked.name}:{asked.stat}", Section(rows, value=asked.stat), descending=descending)


def param_order(name: str, descending: bool) -> Order:
    """Numbers by size, then the rest by text."""
    rows = Param.objects.filter(key=parse_ordering_key(name).name)
    sections = [Section(rows.filter(number__isnull=False), value="number")]
    texts = rows.filter(number__isnull=True)
    if _any(texts):  # seldom both: the index on texts would be read for nothing
        sections.append(Section(texts, value="text"))
    return by_value(name, *sections, descending=descending)


def _any(rows: QuerySet[Param]) -> bool:
    """Ordered as the index is: else PostgreSQL expects to meet such a row soon, and reads the whole table."""
    return bool(rows.order_by("number", "run_id").values_list("pk")[:1])


def _number(key: str, number: float | None) -> float:
    if number is None:
        raise Invalid.at(key, "compare with a finite number")
    return number
