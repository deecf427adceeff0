"""The run table at scale: filters and orders over many runs, on SQLite and PostgreSQL.

`python -m benchmarks.run_table [sqlite|postgres] [runs]` fills a temporary database (100,000 runs × 10 parameters ×
20 metrics by default), requests one page of every query from REST, and prints the median CPU time (of this process and,
on PostgreSQL, of the server's) and the shortest wall time, and for comparison the CPU time of one plain join.
ATTN_BENCH_KEEP names a folder to keep, so that the next run need not fill it again. Results go to
benchmarks/results/run-table-<database>.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

RESULTS = Path(__file__).resolve().parent / "results"
RUNS = 100_000
METRICS = [f"eval/m{n:02d}" for n in range(20)]
REPEATS = 7
BATCH = 2000
SPARSE = METRICS[-1]  # only one run in a hundred has it
# The query strings of /runs/. "wrong end" means that the matches come last in that order.
QUERIES = {
    "no filter, newest first": {},
    "no filter, by metric": {"ordering": "-metric.eval/m00"},
    "no filter, by metric, rising": {"ordering": "metric.eval/m00"},
    "no filter, by a metric that few have": {"ordering": f"-metric.{SPARSE}"},
    "no filter, by parameter": {"ordering": "-param.optimizer.lr"},
    "common parameter, newest first": {"param.model.attention.variant": "no_q"},
    "common parameter, by metric": {"param.model.attention.variant": "no_q", "ordering": "-metric.eval/m00"},
    "every run's parameter, by metric": {"param.data.dataset": "digits", "ordering": "-metric.eval/m00"},
    "common number, by metric": {"param.optimizer.lr": "1e-3", "ordering": "-metric.eval/m00"},
    "parameter's range, by metric": {"param.seed__lt": "300", "ordering": "-metric.eval/m00"},
    "parameter is not, by metric": {"param.model.attention.variant__ne": "full", "ordering": "-metric.eval/m00"},
    "rare parameter, by metric": {"param.model.attention.init": "needle", "ordering": "-metric.eval/m00"},
    "rare parameter, newest first": {"param.model.attention.init": "needle"},
    "absent parameter, by metric": {"param.model.attention.init": "nothing", "ordering": "-metric.eval/m00"},
    "half of the runs, at the wrong end": {"param.half": "bottom", "ordering": "-metric.eval/m00"},
    "a tenth, at the wrong end": {"param.tenth": "yes", "ordering": "-metric.eval/m00"},
    "a twentieth, at the wrong end": {"param.twentieth": "yes", "ordering": "-metric.eval/m00"},
    "metric, common": {"metric.eval/m02__lt": "0.5", "ordering": "-metric.eval/m00"},
    "metric, rare": {"metric.eval/m02__lt": "0.0002", "ordering": "-metric.eval/m00"},
    "metric, absent": {"metric.eval/m02__lt": "-1", "ordering": "-metric.eval/m00"},
    "metric, half at the wrong end": {"metric.eval/m01__gt": "0.5", "ordering": "-metric.eval/m00"},
    "metric, a tenth at the wrong end": {"metric.eval/m01__gt": "0.9", "ordering": "-metric.eval/m00"},
    "metric, common, newest first": {"metric.eval/m02__lt": "0.5"},
    "two common, one metric": {
        "param.model.attention.variant": "no_q",
        "param.model.heads": "4",
        "metric.eval/m02__lt": "0.5",
        "ordering": "-metric.eval/m00",
    },
    "three halves, at the wrong end": {
        "param.half": "bottom",
        "metric.eval/m01__gt": "0.5",
        "param.data.dataset": "digits",
        "ordering": "-metric.eval/m00",
    },
    "two common without a common run": {
        "param.half": "top",
        "metric.eval/m01__gt": "0.5",
        "ordering": "-metric.eval/m00",
    },
    "member of half of the projects, by metric": {"ordering": "-metric.eval/m00"},
    "member of half of the projects, common parameter, by metric": {
        "param.model.attention.variant": "no_q",
        "ordering": "-metric.eval/m00",
    },
    "common parameter, by parameter": {"param.model.attention.variant": "no_q", "ordering": "-param.optimizer.lr"},
    "newest by its date": {"ordering": "-created"},
    "by seed of the run": {"ordering": "-seed"},
    "since a date, by metric": {"created__gte": "2020-01-01", "ordering": "-metric.eval/m00"},
    "state, by metric": {"state": "failed", "ordering": "-metric.eval/m00"},
    "tiny project, by metric": {"project": "tiny", "ordering": "-metric.eval/m00"},
}  # fmt: skip


def configure(url: str, folder: Path) -> None:
    os.environ.update(
        ATTN_DATA=str(folder),
        ATTN_INSECURE_KEY="1",
        DATABASE_URL=url,
        DJANGO_SETTINGS_MODULE="attnservice.settings",
        ATTN_LOG_LEVEL="WARNING",
    )
    import django

    django.setup()


def fill(runs: int) -> None:
    """Straight into the tables: what is measured is reading."""
    import numpy as np
    from django.db import connection, transaction

    from experiments.models import Experiment, Headline, Param, Project, Run
    from experiments.spec import resolved
    from experiments.submissions.submission import plan

    spec = resolved(plan({"name": "x", "spec": {"task": "classify", "data": {"dataset": "digits"}}}).spec)
    projects = [Project.objects.create(name=name) for name in ("large", "small", "tiny")]
    shared = {"spec": spec, "pool": "cpu", "spec_hash": "0" * 64}
    experiments = [Experiment.objects.create(project=project, name=project.name, **shared) for project in projects]
    values = np.random.default_rng(0).random((runs, len(METRICS)))
    values[:, 1] = 1 - values[:, 0]  # against the grain of the first
    for low in range(0, runs, BATCH):
        numbers = range(low, min(low + BATCH, runs))
        with transaction.atomic():
            made = Run.objects.bulk_create(_run(n, experiments, spec) for n in numbers)
            ids = {n: run.pk for n, run in zip(numbers, made, strict=True)}
            _insert(Param, ("run_id", "key", "text", "number"), _param_rows(ids, values))
            _insert(Headline, ("run_id", "key", "last", "min", "max", "count", "nonfinite"), _head_rows(ids, values))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def _insert(model: Any, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    """Three million rows: without an object each, and by COPY where there is one."""
    from django.db import connection

    names = ", ".join(f'"{column}"' for column in columns)
    into = f"{model._meta.db_table} ({names})"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.executemany(f"INSERT INTO {into} VALUES ({', '.join(['%s'] * len(columns))})", list(rows))
            return
        with cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _param_rows(ids: dict[int, int], values: Any) -> Iterator[tuple[Any, ...]]:
    for n, run in ids.items():
        for key, value in _params(n, values[n, 0]).items():
            yield run, key, str(value), value if isinstance(value, int | float) else None


def _head_rows(ids: dict[int, int], values: Any) -> Iterator[tuple[Any, ...]]:
    for n, run in ids.items():
        for key, value in zip(METRICS, values[n].tolist(), strict=True):
            if key != SPARSE or n % 100 == 0:
                yield run, key, value, value - 0.1, value + 0.1, 1, 0


def _run(n: int, experiments: list[Any], spec: dict[str, Any]) -> Any:
    from experiments.models import Run

    experiment = experiments[2 if n % 1000 == 0 else n % 2]
    return Run(
        experiment=experiment,
        project=experiment.project,
        index=n,
        seed=n,
        spec=spec,
        spec_hash="0" * 64,
        steps=1000,
        pool="cpu",
        state="failed" if n % 50 == 0 else "succeeded",
    )


def _params(n: int, metric: float) -> dict[str, Any]:
    return {
        "data.dataset": "digits",
        "model.attention.variant": ("full", "no_q", "no_k", "no_v")[n % 4],
        "model.attention.init": "needle" if n % 10_000 == 17 else "hay",
        "model.heads": (1, 2, 4, 8)[n // 4 % 4],
        "optimizer.lr": (1e-4, 3e-4, 1e-3, 3e-3)[n // 16 % 4],
        "train.steps": 1000 + n % 7,
        "seed": n % 1000,
        "half": "bottom" if metric < 0.5 else "top",
        "tenth": "yes" if metric < 0.1 else "no",
        "twentieth": "yes" if metric < 0.05 else "no",
    }


def ask(query_string: dict[str, str], user: Any) -> list[int]:
    """The whole call as a web process serves it, but for logging in."""
    from rest_framework.test import APIRequestFactory, force_authenticate

    from experiments.api.runs.runs import RunList

    request = APIRequestFactory(SERVER_NAME="localhost").get("/api/v1/runs/", query_string)
    force_authenticate(request, user=user)
    reply = RunList.as_view()(request)
    assert reply.status_code == 200, reply.data
    reply.render()
    return [row["id"] for row in reply.data["results"]]


def ask_by_join(query_string: dict[str, str], user: Any) -> list[int]:
    """The same page by one queryset with a join for the order."""
    from django.http import QueryDict

    from experiments.api.runs.filters import RunQuery, conditions
    from experiments.models import Run

    given = QueryDict(urlencode(query_string))
    query = RunQuery.read(given)
    runs = Run.objects.visible_to(user)
    for condition in conditions(query, given.dict(), user):
        runs = runs.filter(pk__in=condition.ids())
    return list(_joined(runs, query.ordering).values_list("pk", flat=True)[:50])


def _joined(runs: Any, ordering: str) -> Any:
    """Runs in order of a column, a metric or a parameter (numbers before texts), nulls last, then of the id."""
    from django.db.models import F, FilteredRelation, Q

    from experiments.api.runs.families import parse_ordering_key
    from experiments.api.runs.filters import SORTABLE

    descending, name = ordering.startswith("-"), ordering.removeprefix("-")
    nullable = True
    if name.startswith("metric."):
        parsed = parse_ordering_key(name)
        runs = runs.alias(sort_row=FilteredRelation("headlines", condition=Q(headlines__key=parsed.name)))
        columns = [f"sort_row__{parsed.stat}"]
    elif name.startswith("param."):
        key = parse_ordering_key(name).name
        runs = runs.alias(sort_row=FilteredRelation("param_rows", condition=Q(param_rows__key=key)))
        columns = ["sort_row__number", "sort_row__text"]
    else:
        column, nullable = SORTABLE[name]
        columns = [column]
    nulls: dict[str, Any] = {"nulls_last": True} if nullable else {}
    keys = [F(column).desc(**nulls) if descending else F(column).asc(**nulls) for column in columns]
    return runs.order_by(*keys, "-pk" if descending else "pk")


class CpuTime:
    """CPU time of this process and of the database's, which for SQLite is the same."""

    def __init__(self) -> None:
        from django.db import connection

        self._server: Path | None = None
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET max_parallel_workers_per_gather = 0")  # helpers' time would not be counted
                cursor.execute("SELECT pg_backend_pid()")
                self._server = Path(f"/proc/{cursor.fetchone()[0]}/schedstat")

    def cpu(self) -> float:
        server = int(self._server.read_text().split()[0]) / 1e9 if self._server else 0.0
        return time.process_time() + server

    def measure(self, work: Callable[[], Any], repeats: int) -> tuple[float, float]:
        """Median CPU and shortest wall time in ms."""
        work()
        cpu, wall = [], []
        for _ in range(repeats):
            before, began = self.cpu(), time.perf_counter()
            work()
            cpu.append((self.cpu() - before) * 1000)
            wall.append((time.perf_counter() - began) * 1000)
        return round(median(cpu), 1), round(min(wall), 1)


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    with ExitStack() as stack:
        keep = os.environ.get("ATTN_BENCH_KEEP")
        folder = Path(keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="attn-bench-")))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)  # PostgreSQL runs as another user in a folder below
        configure(_url(kind, runs, folder, stack), folder)
        _prepare(runs)
        timings = _measured()
    result = {"database": kind, "runs": runs, "host": platform.node(), "cores": os.cpu_count(), "ms": timings}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"run-table-{kind}.json").write_text(json.dumps(result, indent=1) + "\n")


def _url(kind: str, runs: int, folder: Path, stack: ExitStack) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder / f't{runs}.sqlite3'}"
    from tests.postgres import Postgres

    server = Postgres(folder / "pg").start()
    stack.callback(server.stop)
    return server.url()


def _prepare(runs: int) -> None:
    from django.core.management import call_command

    from experiments.models import Run

    call_command("migrate", verbosity=0)
    if not Run.objects.exists():
        fill(runs)


def _measured() -> dict[str, dict[str, float]]:
    from django.contrib.auth import get_user_model

    from experiments.models import Project

    timer, users = CpuTime(), get_user_model().objects
    admin, _ = users.get_or_create(username="admin", defaults={"is_superuser": True})
    member, new = users.get_or_create(username="member")
    if new:
        Project.objects.get(name="small").members.add(member)
    timings = {}
    for name, query_string in QUERIES.items():
        user = member if name.startswith("member") else admin
        cpu, wall = timer.measure(lambda q=query_string, u=user: ask(q, u), REPEATS)  # type: ignore[misc]
        joined, _ = timer.measure(lambda q=query_string, u=user: ask_by_join(q, u), 3)  # type: ignore[misc]
        same = ask(query_string, user) == ask_by_join(query_string, user)
        timings[name] = {"cpu": cpu, "wall": wall, "join cpu": joined}
        print(
            f"{name:60s} cpu {cpu:6.1f}  wall {wall:6.1f}  join {joined:6.1f}{'' if same else '  DIFFERENT'}",
            flush=True,
        )
    return timings


if __name__ == "__main__":
    main()
