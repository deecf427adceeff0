"""A day of a whole installation in virtual time: the real moves on a real database, everything around them a fake that
dies, freezes and is late by the dice of one seed."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q

from experiments import lifecycle
from experiments.maintenance.reconciler import Reconciler
from experiments.models import Project, Run
from experiments.states import ENDED, HELD, State
from experiments.submissions.submission import plan
from tests.chaos.fakes import POISON, FakeWorker
from tests.chaos.monitor import Watchman
from tests.chaos.virtual import Clock

RECONCILE_S, LEASE_S, BACKOFF_S = 60, 600, 30
PATIENCE_S = 4 * 3600  # then any run counts as urgent
STARVED_S = 2 * PATIENCE_S
TAIL_S = 12 * 3600  # for what was still in the line at the day's end
SPEC: dict[str, Any] = {
    "task": "classify",
    "data": {"dataset": "digits"},
    "optimizer": {"warmup_steps": 2},
    "train": {"steps": 20, "batch_size": 8, "eval_every": 10, "checkpoint_every": 10},
}


@dataclass(frozen=True)
class Plan:
    """`load` is the share of all slots that the day's work would fill if nothing ever died."""

    seed: int = 1
    hours: float = 24.0
    workers: int = 50
    load: float = 0.6
    turn_s: float = 180.0  # between what one worker says, on average


class Day:
    """`live` goes through all events; each is one call of the product, and is looked at when it has happened."""

    def __init__(self, wanted: Plan, clock: Clock) -> None:
        self.plan, self.clock = wanted, clock
        self.dice = random.Random(wanted.seed)
        self.watch = Watchman()
        self.did: Counter[str] = Counter()
        self.bells: list[str] = []
        self._line: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.end_s, self.lease_s = wanted.hours * 3600, float(LEASE_S)
        users = get_user_model().objects
        self.users = [users.create_user(f"user{number}") for number in range(8)]
        self.projects = [Project.objects.create(name=f"simulated {number}") for number in range(5)]
        Project.objects.filter(pk=self.projects[0].pk).update(max_running=max(2, wanted.workers // 8))
        self.workers = [FakeWorker(self, number) for number in range(wanted.workers)]
        self.reconcilers = [Reconciler(name, lambda: clock.seconds) for name in ("first", "second")]

    def at(self, delay: float, event: Callable[[], None]) -> None:
        """Something that happens so many seconds from now."""
        self._order += 1
        heapq.heappush(self._line, (self.clock.seconds + delay, self._order, event))

    def live(self) -> None:
        """From morning until all runs have ended."""
        with patch("experiments.queue.doorbell.app.send_task", self._ring), _rules():
            for worker in self.workers:
                self.at(self.dice.uniform(0, 60), worker.arrive)
            for number in range(2):
                self.at(10 + 30 * number, lambda number=number: self._reconcile(number))
            self.at(20, self._submit)
            self.at(600, self._meddle)
            while self._line and not (self.clock.seconds > self.end_s and self._all_ended()):
                due, _, event = heapq.heappop(self._line)
                if due > self.end_s + TAIL_S:
                    break
                self.clock.advance(due)
                event()
                self.did["events"] += 1
                self.watch.look(due)
            self._who_starves()
            self.watch.close(self.clock.seconds)

    # --- The broker: bells are lost and doubled ---

    def _ring(self, name: str, *, args: list[int], queue: str, **options: Any) -> None:
        chance = self.dice.random()
        copies = 0 if chance < 0.05 else 2 if chance < 0.1 else 1
        self.did["bells lost"] += copies == 0
        for _ in range(copies):
            idle = [worker for worker in self.workers if worker.idle and worker.pool == queue]
            if idle:
                self.at(self.dice.uniform(0.05, 3), self.dice.choice(idle).hear)

    # --- Reconcilers: two, the one on duty dies now and then ---

    def _reconcile(self, number: int) -> None:
        acted = self.reconcilers[number].tick()
        dies = acted and self.dice.random() < 0.004
        self.did["reconciler deaths"] += dies
        if dies:
            self.reconcilers[number] = Reconciler(f"next {self.did['events']}", lambda: self.clock.seconds)
        self.at(self.dice.uniform(120, 900) if dies else RECONCILE_S, lambda: self._reconcile(number))
        if number == 0 and self.did["events"] % 8 == 0:
            self._who_starves()

    def _who_starves(self) -> None:
        """What may be claimed now and has waited for long; a project at its limit is not starved by others."""
        for pk, seen in self.watch.seen.items():
            if seen.state == State.QUEUED and self.clock.seconds - seen.since > STARVED_S:
                self.watch.violate(self.clock.seconds, f"run {pk} starves in the line since {seen.since:.0f} s")

    # --- People ---

    def _submit(self) -> None:
        """An experiment of a few seeds; then the next after a time that gives the wanted load."""
        if self.clock.seconds > self.end_s:
            return
        steps, seeds = self.dice.choice([20, 40, 60, 100]), self.dice.choice([1, 1, 2, 3, 5, 8])
        poison = self.dice.random() < 0.02
        spec = {**SPEC, "train": {**SPEC["train"], "steps": steps, "checkpoint_every": 10}}
        spec["resources"] = {"threads": 1, "pool": self.dice.choice(["cpu", "cpu", "gpu"])}
        wanted = plan(
            {
                "name": POISON if poison else "work",
                "spec": spec,
                "seeds": [1] if poison else list(range(seeds)),
                "priority": self.dice.choice([0, 0, 0, 0, 5, 50]),
            }
        )
        lifecycle.submit(wanted, project=self.dice.choice(self.projects), user=self.dice.choice(self.users))
        self.did["submitted"] += len(wanted.runs)
        seconds = len(wanted.runs) * steps / 5 * self.plan.turn_s / (self.plan.workers * self.plan.load)
        self.at(self.dice.expovariate(1 / max(seconds, 1.0)), self._submit)

    def _meddle(self) -> None:
        """Somebody cancels an open run, or wants a cancelled one after all."""
        self.at(self.dice.expovariate(1 / 900), self._meddle)
        user = self.dice.choice(self.users)
        if self.dice.random() < 0.3:
            run = Run.objects.filter(state=State.CANCELLED).order_by("pk").first()
            if run and self.clock.seconds < self.end_s:
                self.did["retries"] += 1
                lifecycle.retry(run.pk, user)
        else:
            states = Q(state__in=(*HELD, State.QUEUED))
            found = list(Run.objects.filter(states).order_by("pk").values_list("pk", flat=True))
            if found:
                self.did["cancels"] += 1
                lifecycle.request_cancel(self.dice.choice(found), user)

    def _all_ended(self) -> bool:
        return all(seen.state in ENDED for seen in self.watch.seen.values())

    def figures(self) -> dict[str, Any]:
        """What happened, for the table."""
        ends = Counter(seen.state for seen in self.watch.seen.values())
        return {
            "seed": self.plan.seed,
            "hours": self.plan.hours,
            "workers": self.plan.workers,
            "virtual hours until all had ended": round(self.clock.seconds / 3600, 2),
            "runs": len(self.watch.seen),
            **{f"runs {state}": ends[state] for state in ENDED},
            **dict(sorted(self.did.items())),
            "leases taken back": self.watch.counts["taken back"],
            "runs looked at": self.watch.checks,
            "longest wait in minutes": round(self.watch.longest_wait / 60, 1),
        }


def _rules() -> Any:
    from django.test import override_settings

    return override_settings(
        ATTN_LEASE_S=LEASE_S,
        ATTN_BACKOFF_S=BACKOFF_S,
        ATTN_CRASH_LIMIT=3,
        ATTN_QUEUE_PATIENCE_S=PATIENCE_S,
        ATTN_PROJECT_RUNNING=getattr(settings, "ATTN_PROJECT_RUNNING", 0),
    )
