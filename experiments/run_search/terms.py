"""The terms of a search: conditions, orders in sections, places, and the expressions that they become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, F, Func, OuterRef, QuerySet, Subquery, Value


@dataclass(frozen=True)
class Condition:
    """Rows of one table, at most one per run; `run` is the column with the run's id. `in_order`: an index holds just
    these rows in order of runs."""

    rows: QuerySet[Any]
    run: str = "run_id"
    in_order: bool = False

    def ids(self) -> QuerySet[Any, Any]:
        return self.rows.order_by().values_list(self.run, flat=True)

    def lookup(self, run: str) -> Subquery:
        """Not null if the outer row's run matches. For EXISTS PostgreSQL would build the whole set."""
        own = self.rows.order_by().filter(**{self.run: OuterRef(run)})
        return Subquery(own.values("pk")[:1])


@dataclass(frozen=True)
class OrderSection:
    """Part of an order: rows that one index holds in order of `value` and run. Without a value: all runs in order of
    ids, except those of `without`, which earlier sections hold."""

    rows: QuerySet[Any]
    run: str = "run_id"
    value: str | None = None
    without: tuple[Condition, ...] = ()

    @property
    def columns(self) -> list[str]:
        return [self.run, self.value] if self.value else [self.run]


@dataclass(frozen=True)
class Place:
    """The place of a run in an order: enough to continue from, even if rows are added or deleted meanwhile."""

    section: int
    value: Any
    run: int


@dataclass(frozen=True)
class Order:
    """Sections follow each other in either direction; runs without a value come last. Equal values are ordered by run,
    in the order's own direction, so that one index serves both."""

    name: str
    descending: bool
    sections: tuple[OrderSection, ...]

    def numbers(self, backward: bool, after: Place | None) -> Iterator[int]:
        """The sections to read, in the order of reading."""
        numbers = range(len(self.sections))
        for number in reversed(numbers) if backward else numbers:
            if after is None or (number <= after.section if backward else number >= after.section):
                yield number


class Among(Func):
    """Whether the run is in the set. With a plain IN, PostgreSQL would join and SQLite start from the set, whatever
    its size; with IS TRUE both build the set once and look it up."""

    template = "((%(expressions)s) IS TRUE)"
    arg_joiner = " IN "
    output_field = BooleanField()

    def __init__(self, run: str, condition: Condition) -> None:
        super().__init__(F(run), Subquery(condition.ids()))


class NotAmong(Among):
    template = "((%(expressions)s) IS NOT TRUE)"


class Listed(Func):
    """Whether the run is one of thousands, in one parameter: thousands of parameters would cost more than the rows."""

    output_field = BooleanField()

    def __init__(self, run: str, runs: Iterable[int]) -> None:
        super().__init__(F(run))
        self.runs = list(runs)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        return f"{sql} IN (SELECT value FROM json_each(%s))", [*params, json.dumps(self.runs)]

    def as_sql(self, compiler: Any, connection: Any, **extra: Any) -> Any:  # type: ignore[override]
        sql, params = compiler.compile(self.source_expressions[0])
        return f"{sql} = ANY(%s::bigint[])", [*params, self.runs]


class Beyond(Func):
    """Compares whole rows, which an index on both columns answers in one step."""

    output_field = BooleanField()

    def __init__(self, section: OrderSection, after: Place, *, descending: bool) -> None:
        there = [after.run, after.value][: len(section.columns)]
        pairs = list(zip(section.columns, there, strict=True))[::-1]
        super().__init__(*(F(column) for column, _ in pairs), *(Value(value) for _, value in pairs))
        self.sign = "<" if descending else ">"

    def as_sql(self, compiler: Any, connection: Any, **extra: Any) -> Any:  # type: ignore[override]
        parts = [compiler.compile(part) for part in self.source_expressions]
        half = len(parts) // 2
        left, right = (", ".join(sql for sql, _ in side) for side in (parts[:half], parts[half:]))
        return f"(({left}) {self.sign} ({right}))", [param for _, own in parts for param in own]
