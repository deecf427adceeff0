"""The names that a filter or an order of the runs table may use: fields of a spec, and what some visible run has.

An unknown name would match no run or change no order, which looks like an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from pydantic import BaseModel

from experiments.api.http.problems import Invalid
from experiments.models import Headline, Param, Project, Run
from experiments.spec import TASKS, FieldError
from experiments.spec.errors import did_you_mean

from .families import parse_key, parse_ordering_key

# Metrics that a table may show before any run has recorded them.
USUAL = frozenset({"loss/total", "eval/mask_iou", "eval/box_iou", "eval/presence", "eval/accuracy"})
_RECENT = 50  # runs whose names are suggested


def check_names(ordering: str, given: Mapping[str, str], user: AbstractBaseUser) -> None:
    """Raises Invalid at each filter, and at the ordering, that names an unknown parameter or metric. Costs a query for
    each name that is no field of a spec and no usual metric."""
    keys = [(key, key, False) for key in given if key.startswith(("param.", "metric."))]
    bare = ordering.removeprefix("-")
    if bare.startswith(("param.", "metric.")):
        keys.append(("ordering", bare, True))
    problems = [problem for field, key, ordered in keys if (problem := _unknown(field, key, ordered, user))]
    if problems:
        raise Invalid(error for problem in problems for error in problem.errors)


def check_columns(keys: Sequence[str], user: AbstractBaseUser) -> None:
    """Raises Invalid at each of `cols` that is no column, or an unknown parameter or metric."""
    errors = [error for key in keys for error in _no_column(key, user)]
    if errors:
        raise Invalid(FieldError(("cols",), error.message) for error in errors)


def _no_column(key: str, user: AbstractBaseUser) -> list[FieldError]:
    if not key.startswith(("param.", "metric.")):
        text = f"'{key}' is not a column; write param.<path> or metric.<series>{_hint(key, user)}"
        return [FieldError(("cols",), text)]
    try:
        operator = parse_key(key, f"{key.partition('.')[0]}.").operator
    except Invalid as error:
        return error.errors
    if operator:
        return [FieldError(("cols",), f"remove '__{operator}': a column has no comparison")]
    unknown = _unknown("cols", key, False, user)
    return unknown.errors if unknown else []


def _unknown(field: str, key: str, ordered: bool, user: AbstractBaseUser) -> Invalid | None:
    family = key.partition(".")[0]
    name = (parse_ordering_key(key) if ordered else parse_key(key, f"{family}.")).name
    if family == "param":
        known = name in spec_paths() or _exists(Param.objects.filter(key=name).order_by("number", "run_id"), user)
        what = "no spec and no run that you may see has the parameter"
    else:
        known = name in USUAL or _exists(Headline.objects.filter(key=name).order_by("last", "run_id"), user)
        what = "no run that you may see has the metric"
    return None if known else Invalid.at(field, f"{what} '{name}'{_hint(f'{family}.{name}', user)}")


def _exists(rows: QuerySet[Any], user: AbstractBaseUser) -> bool:
    projects = Project.objects.visible_to(user).order_by().values("pk")
    return bool(rows.filter(run__project__in=projects).values_list("pk")[:1])


def _hint(name: str, user: AbstractBaseUser) -> str:
    known = _names(user)
    return did_you_mean(name.partition(".")[2], known) or did_you_mean(name, known)


def _names(user: AbstractBaseUser) -> list[str]:
    """All names to suggest: fields of specs, and names of the newest runs."""
    runs = list(Run.objects.visible_to(user).order_by("-id").values_list("pk", flat=True)[:_RECENT])
    params = Param.objects.filter(run__in=runs).order_by().values_list("key", flat=True).distinct()
    metrics = Headline.objects.filter(run__in=runs).order_by().values_list("key", flat=True).distinct()
    fields = sorted({*spec_paths(), *params})
    return [f"param.{name}" for name in fields] + [f"metric.{name}" for name in sorted({*USUAL, *metrics})]


@cache
def spec_paths() -> frozenset[str]:
    """The dotted path of every field of every task's spec."""
    return frozenset(path for model in TASKS.values() for path in _paths([model]))


def _paths(models: Iterable[type[BaseModel]], prefix: str = "") -> Iterator[str]:
    for model in models:
        for name, field in model.model_fields.items():
            parts = [field.annotation, *get_args(field.annotation)]
            sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
            if sections:
                yield from _paths(sections, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"
