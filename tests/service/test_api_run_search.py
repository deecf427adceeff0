"""The runs table finds what a plain list would, whichever way it goes, and goes by indexes."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from experiments import run_search
from experiments.api.runs.filters import RunQuery, conditions
from experiments.api.runs.paging import page
from experiments.models import Experiment, Headline, Param, Project, Run
from experiments.run_search import keyset_scan

from .api_client import needs_database
from .factories import make_user

pytestmark = needs_database
OTHER = "eval/other"
METRIC = "eval/score"
# Thresholds that make small tables take each way: led by few, probed, scanned, and all of them in turn.
WAYS = {"led": (10_000, 250, 4000), "probed": (0, 500, 4000), "scanned": (0, 1, 0), "mixed": (5, 2, 12)}


class Table:
    """Some runs as rows, and as plain dictionaries to hold against them."""

    def __init__(self, seed: int, count: int) -> None:
        self.random = random.Random(seed)
        self.mine, self.hidden = (Project.objects.create(name=name) for name in ("mine", "hidden"))
        self.user = make_user()
        self.mine.members.add(self.user)
        self.rows: list[dict[str, Any]] = [self._row() for _ in range(count)]
        shared = {"spec": {}, "pool": "cpu", "spec_hash": ""}
        owner = {p.name: Experiment.objects.create(project=p, name="x", **shared) for p in (self.mine, self.hidden)}
        made = Run.objects.bulk_create(
            Run(experiment=owner[row["project"]], project=owner[row["project"]].project, index=index, steps=1,
                seed=row["seed"], state=row["state"], **shared)
            for index, row in enumerate(self.rows)
        )  # fmt: skip
        for row, run in zip(self.rows, made, strict=True):
            row["id"] = run.pk
        Param.objects.bulk_create(
            Param(run_id=row["id"], key=key, text=str(value), number=value if isinstance(value, float) else None)
            for row in self.rows
            for key, value in row["params"].items()
        )
        Headline.objects.bulk_create(
            Headline(run_id=row["id"], key=key, last=value, min=value)
            for row in self.rows
            for key, value in row["metrics"].items()
        )

    def _row(self) -> dict[str, Any]:
        pick = self.random.choice
        params = {"kind": pick(["a", "b", "b", "b"]), "lr": pick([0.1, 0.2, 0.3]), "odd": pick([1.0, 2.0, "x", "y"])}
        metrics = {METRIC: pick([0.25, 0.5, 0.75, 1.0, None]), OTHER: pick([0.0, 1.0])}
        for optional in ("odd", "lr"):
            if self.random.random() < 0.2:
                del params[optional]
        if self.random.random() < 0.2:
            del metrics[METRIC]
        project = "hidden" if self.random.random() < 0.2 else "mine"
        return {"params": params, "metrics": metrics, "project": project, "seed": pick([1, 2, 3]),
                "state": pick(["queued", "failed"])}  # fmt: skip

    def question(self) -> dict[str, str]:
        pick = self.random.choice
        filters = {
            "param.kind": pick(["a", "b", "none"]),
            "param.lr": pick(["0.1", "2e-1"]),
            "param.lr__gte": "0.2",
            "param.odd__ne": pick(["x", "1"]),
            f"metric.{METRIC}__lt": pick(["0.3", "0.8", "0"]),
            f"metric.{OTHER}:min": "1",
            "state": pick(["failed", "queued,failed"]),
        }
        chosen = self.random.sample(list(filters), self.random.randint(0, 3))
        ordering = pick(["id", f"metric.{METRIC}", "param.lr", "param.odd", "param.kind", "seed", "state", "started"])
        return {name: filters[name] for name in chosen} | {"ordering": pick(["", "-"]) + ordering}

    def expected(self, question: dict[str, str]) -> list[int]:
        rows = [row for row in self.rows if row["project"] == "mine"]
        for name, value in question.items():
            if name != "ordering":
                rows = [row for row in rows if _passes(row, name, value)]
        descending, name = question["ordering"].startswith("-"), question["ordering"].removeprefix("-")
        rows.sort(key=lambda row: (_sortable(row, name), row["id"]), reverse=descending)
        rows.sort(key=lambda row: _section(row, name))
        return [row["id"] for row in rows]


def _passes(row: dict[str, Any], name: str, asked: str) -> bool:
    if name == "state":
        return row["state"] in asked.split(",")
    family, _, key = name.partition(".")
    key, _, operator = key.partition("__")
    value = row["params" if family == "param" else "metrics"].get(key.partition(":")[0])
    if value is None:
        return False
    wanted: Any = float(asked) if re.fullmatch(r"[0-9.e-]+", asked) else asked
    if operator in ("", "ne"):
        return bool(value == wanted) != (operator == "ne")
    return isinstance(value, float) and bool(value >= wanted if operator == "gte" else value < wanted)


def _value(row: dict[str, Any], name: str) -> Any:
    family, _, key = name.partition(".")
    found = {"param": row["params"], "metric": row["metrics"]}.get(family)
    return found.get(key) if found is not None else {"id": row["id"], "started": None}.get(name, row.get(name))


def _section(row: dict[str, Any], name: str) -> int:
    """Numbers, then texts, then nothing."""
    value = _value(row, name)
    return 2 if value is None else 1 if isinstance(value, str) else 0


def _sortable(row: dict[str, Any], name: str) -> tuple[float, str]:
    value = _value(row, name)
    return (0.0, value or "") if isinstance(value, str | None) else (value, "")


def asked(question: dict[str, str], user: Any, limit: int, cursor: str | None = None) -> Any:
    given = QueryDict(mutable=True)
    given.update(question | {"limit": str(limit)} | ({"cursor": cursor} if cursor else {}))
    return page(RunQuery.read(given), given, user)


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few, near, far = WAYS[way]
    for module, name, value in (
        (keyset_scan, "NEAR", near),
        (keyset_scan, "FAR", far),
        (keyset_scan, "FEW", few),
        (run_search, "FEW", few),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("way", WAYS)
def test_any_question_answers_as_a_plain_list_would(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    table = Table(seed=len(way), count=80)
    for _ in range(12):
        question = table.question()
        expected, limit = table.expected(question), table.random.choice([3, 10, 100])
        pages = [asked(question, table.user, limit)]
        while pages[-1].next:
            pages.append(asked(question, table.user, limit, pages[-1].next))
        assert [run for one in pages for run in one.ids] == expected, question
        back = [pages[-1]]
        while back[0].previous:
            back.insert(0, asked(question, table.user, limit, back[0].previous))
        assert [one.ids for one in back] == [one.ids for one in pages], question
        given = {name: value for name, value in question.items() if name != "ordering"}
        query = QueryDict(mutable=True)
        query.update(given)
        assert run_search.count(conditions(RunQuery.read(query), given, table.user), 1000) == len(expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "question",
    [
        {"ordering": f"-metric.{METRIC}"},
        {"param.kind": "b", "ordering": f"-metric.{METRIC}"},
        {"param.lr__gte": "0.2", "ordering": f"metric.{METRIC}"},
        {f"metric.{OTHER}__lt": "0.5", "ordering": f"-metric.{METRIC}"},
        {f"metric.{OTHER}__lt": "0.5", "param.kind": "b", "ordering": "-param.lr"},
        {"param.kind": "b"},
    ],
)
def test_every_way_goes_by_indexes(way: str, question: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    table = Table(seed=1, count=40)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # so small a table is read whole unless that is forbidden
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_sort = off")
    with CaptureQueriesContext(connection) as queries:
        asked(question, table.user, 3)
    plans = [
        plan_of(query["sql"]) for query in queries if "experiments_param" in query["sql"] or METRIC in query["sql"]
    ]
    assert plans
    for plan in plans:
        assert not re.search(
            r"SCAN (experiments_(headline|param)|[A-Z]\d+)\b|Seq Scan on experiments_(headline|param)", plan
        ), plan
    if way != "led":
        assert not any("TEMP B-TREE" in plan or "Sort" in plan for plan in plans), plans


def plan_of(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_who_sees_every_project_is_not_asked_which(django_assert_num_queries: Any) -> None:
    Table(seed=2, count=5)
    assert run_search.visible(make_user(is_superuser=True)) == []
    assert len(run_search.visible(make_user())) == 1
