"""The storm: runs are submitted while processes are killed at random; then faults end and every run is judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FaultInjector, draw_faults
from tests.chaos.load import InBackground, LoadGenerator, answered, kinds
from tests.chaos.logs import complaints_of
from tests.chaos.verdict import KINDS, Outcome, judge

AFTERMATH_S = 300.0


@dataclass(frozen=True)
class StormOptions:
    """At least `runs` runs of `specs` kinds; runs are submitted until `kills` processes were killed."""

    runs: int
    kills: int
    seed: int
    specs: int
    steps: int
    workers: int
    pace_s: float
    reconcilers: int = 1


def storm(options: StormOptions, folder: Path, *, postgres: bool, **script: str) -> dict[str, Any]:
    """Figures and violations, ready for JSON."""
    cluster = Cluster(folder, postgres=postgres, script=script)
    try:
        return Storm(options, cluster).run()
    finally:
        cluster.close()


class Storm:
    def __init__(self, options: StormOptions, cluster: Cluster) -> None:
        self.options, self.cluster = options, cluster
        token = cluster.prepare()
        cluster.open(workers=options.workers, reconcilers=options.reconcilers)
        self.load = LoadGenerator(cluster.url, token)
        series = draw_faults(options.seed, options.pace_s, database=cluster.postgres is not None)
        self.faults = FaultInjector(cluster, series)
        self.open_runs = 0
        self._kinds: Iterator[int] = kinds(options.specs)
        self._fences: dict[int, int] = {}
        self.backwards: list[str] = []

    def run(self) -> dict[str, Any]:
        from django.db import connection

        references = self._undisturbed()
        began = time.monotonic()
        submitting, watching = InBackground(self._submit_more, 0.2), InBackground(self._watch, 0.5)
        self._tick_while(submitting.is_alive, inject=True)
        self.faults.resume_all()
        stormed = time.monotonic() - began
        self._tick_while(lambda: bool(self.open_runs), inject=False, within_s=AFTERMATH_S)
        watching.halt()
        self._tick_while(lambda: bool(self.faults._parentless), inject=False, within_s=15)
        connection.close()  # opened before the database was killed
        outcome = judge(self.load.accepted, references)
        for error in filter(None, (submitting.error, watching.error)):
            outcome.violate("lost", repr(error))
        return self._report(outcome, stormed, time.monotonic() - began)

    def _undisturbed(self) -> dict[int, int]:
        """One run of each kind, before any fault."""
        runs = {kind: self.load.submit(kind, self.options.steps) for kind in range(self.options.specs)}
        self.load.accepted = {}
        deadline = time.monotonic() + 120
        while self._unfinished(list(runs.values())):
            assert time.monotonic() < deadline, "the undisturbed runs do not end"
            time.sleep(0.2)
        return runs

    def _unfinished(self, runs: list[int]) -> int:
        from experiments.models import Run

        return Run.objects.filter(pk__in=runs).exclude(state__in=("succeeded", "failed", "cancelled")).count()

    @property
    def _killed(self) -> int:
        return self.faults.kills.total()

    def _submit_more(self) -> bool:
        """Keep one run more open than there are workers, until all runs are submitted and all faults injected."""
        if len(self.load.accepted) >= self.options.runs and self._killed >= self.options.kills:
            return True
        if self.open_runs <= self.options.workers:
            self.load.submit(next(self._kinds), self.options.steps)
            self.open_runs += 1
        return False

    def _watch(self) -> bool:
        """Count open runs, and check that no fence decreases."""
        from experiments.models import Run

        known = list(self.load.accepted)
        rows = answered(lambda: list(Run.objects.filter(pk__in=known).values_list("pk", "fence", "state")))
        if rows is None:
            return False
        for pk, fence, _ in rows:
            if fence < self._fences.get(pk, 0):
                self.backwards.append(f"run {pk}: fence {self._fences[pk]} → {fence}")
            self._fences[pk] = fence
        ended = sum(state in ("succeeded", "failed", "cancelled") for _, _, state in rows)
        self.open_runs = len(known) - ended
        return False

    def _tick_while(self, going: Any, *, inject: bool, within_s: float = float("inf")) -> None:
        deadline = time.monotonic() + within_s
        while going() and time.monotonic() < deadline:
            self.faults.tick(inject=inject and self._killed < self.options.kills)
            time.sleep(0.1)

    def _report(self, outcome: Outcome, stormed: float, took: float) -> dict[str, Any]:
        for words in self.faults.orphans:
            outcome.violate("orphans", words)
        for words in self.backwards:
            outcome.violate("fences", words)
        if self._killed < self.options.kills:
            outcome.violate("lost", f"only {self._killed} of {self.options.kills} faults were injected")
        for words in complaints_of(self.cluster.folder / "logs"):
            outcome.violate("errors", words)
        logs = "".join(path.read_text(errors="replace") for path in (self.cluster.folder / "logs").glob("worker*"))
        return {
            "database": "PostgreSQL" if self.cluster.postgres else "SQLite",
            "seed": self.options.seed,
            "runs": outcome.runs,
            "kills": self._killed,
            "kills by kind": dict(sorted(self.faults.kills.items())),
            "freezes": self.faults.freezes.total(),
            "freezes by kind": dict(sorted(self.faults.freezes.items())),
            "attempts": outcome.attempts,
            "leases lost, as holders found out": logs.count("nothing more is written"),
            "submissions sent": self.load.tries,
            "series compared": outcome.series,
            "points compared": outcome.points,
            **{kind: outcome.counts[kind] for kind in KINDS},
            "seconds of storm": round(stormed, 1),
            "seconds": round(took, 1),
            "violations": outcome.violations,
        }
