"""The storm: runs come in through the web while everything is struck at random; then calm, and a verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Company
from tests.chaos.faults import Mischief, blows
from tests.chaos.load import Customer, InBackground, answered, kinds
from tests.chaos.logs import complaints_of
from tests.chaos.verdict import KINDS, Verdict, judge

AFTERMATH_S = 300.0


@dataclass(frozen=True)
class Weather:
    """At least `runs` runs of `specs` kinds, and runs go on coming until `kills` blows have killed."""

    runs: int
    kills: int
    seed: int
    specs: int
    steps: int
    workers: int
    pace_s: float
    reconcilers: int = 1


def storm(weather: Weather, folder: Path, *, postgres: bool, **script: str) -> dict[str, Any]:
    """Figures and violations, as JSON would hold them."""
    company = Company(folder, postgres=postgres, script=script)
    try:
        return Storm(weather, company).rage()
    finally:
        company.close()


class Storm:
    def __init__(self, weather: Weather, company: Company) -> None:
        self.weather, self.company = weather, company
        token = company.prepare()
        company.open(workers=weather.workers, reconcilers=weather.reconcilers)
        self.customer = Customer(company.url, token)
        series = blows(weather.seed, weather.pace_s, database=company.postgres is not None)
        self.mischief = Mischief(company, series)
        self.open_runs = 0
        self._kinds: Iterator[int] = kinds(weather.specs)
        self._fences: dict[int, int] = {}
        self.backwards: list[str] = []

    def rage(self) -> dict[str, Any]:
        from django.db import connection

        references = self._undisturbed()
        began = time.monotonic()
        shop, watch = InBackground(self._shop, 0.2), InBackground(self._watch, 0.5)
        self._tend(shop.is_alive, strike=True)
        self.mischief.calm()
        stormed = time.monotonic() - began
        self._tend(lambda: bool(self.open_runs), strike=False, within_s=AFTERMATH_S)
        watch.halt()
        self._tend(lambda: bool(self.mischief._bereft), strike=False, within_s=15)
        connection.close()  # it was opened before the database was struck
        verdict = judge(self.customer.accepted, references)
        for error in filter(None, (shop.error, watch.error)):
            verdict.violate("lost", repr(error))
        return self._report(verdict, stormed, time.monotonic() - began)

    def _undisturbed(self) -> dict[int, int]:
        """One run of each kind, before anything is struck."""
        runs = {kind: self.customer.hand_over(kind, self.weather.steps) for kind in range(self.weather.specs)}
        self.customer.accepted = {}
        deadline = time.monotonic() + 120
        while self._unfinished(list(runs.values())):
            assert time.monotonic() < deadline, "the undisturbed runs do not end"
            time.sleep(0.2)
        return runs

    def _unfinished(self, runs: list[int]) -> int:
        from experiments.models import Run

        return Run.objects.filter(pk__in=runs).exclude(state__in=("succeeded", "failed", "cancelled")).count()

    @property
    def _struck(self) -> int:
        return self.mischief.kills.total()

    def _shop(self) -> bool:
        """Keep one run more in the line than there are workers, until all runs are in and all blows dealt."""
        if len(self.customer.accepted) >= self.weather.runs and self._struck >= self.weather.kills:
            return True
        if self.open_runs <= self.weather.workers:
            self.customer.hand_over(next(self._kinds), self.weather.steps)
            self.open_runs += 1
        return False

    def _watch(self) -> bool:
        """How much is open, and that no fence ever goes back."""
        from experiments.models import Run

        known = list(self.customer.accepted)
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

    def _tend(self, going: Any, *, strike: bool, within_s: float = float("inf")) -> None:
        deadline = time.monotonic() + within_s
        while going() and time.monotonic() < deadline:
            self.mischief.tend(strike=strike and self._struck < self.weather.kills)
            time.sleep(0.1)

    def _report(self, verdict: Verdict, stormed: float, took: float) -> dict[str, Any]:
        for words in self.mischief.orphans:
            verdict.violate("orphans", words)
        for words in self.backwards:
            verdict.violate("fences", words)
        if self._struck < self.weather.kills:
            verdict.violate("lost", f"only {self._struck} of {self.weather.kills} blows were dealt")
        for words in complaints_of(self.company.folder / "logs"):
            verdict.violate("errors", words)
        logs = "".join(path.read_text(errors="replace") for path in (self.company.folder / "logs").glob("worker*"))
        return {
            "database": "PostgreSQL" if self.company.postgres else "SQLite",
            "seed": self.weather.seed,
            "runs": verdict.runs,
            "kills": self._struck,
            "kills by kind": dict(sorted(self.mischief.kills.items())),
            "freezes": self.mischief.freezes.total(),
            "freezes by kind": dict(sorted(self.mischief.freezes.items())),
            "attempts": verdict.attempts,
            "leases lost, as holders found out": logs.count("nothing more is written"),
            "submissions sent": self.customer.tries,
            "series compared": verdict.series,
            "points compared": verdict.points,
            **{kind: verdict.found[kind] for kind in KINDS},
            "seconds of storm": round(stormed, 1),
            "seconds": round(took, 1),
            "violations": verdict.violations,
        }
