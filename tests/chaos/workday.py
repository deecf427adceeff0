"""A day of a whole installation in virtual time: real moves on a real database; all around them is fake, and dies,
freezes and is late at random, from one seed."""

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
from tests.chaos.monitor import Monitor
from tests.chaos.virtual import VirtualClock

RECONCILE_S, LEASE_S, BACKOFF_S = 60, 600, 30
PATIENCE_S = 4 * 3600  # then any run counts as urgent
STARVED_S = 2 * PATIENCE_S
TAIL_S = 12 * 3600  # for what was still in the queue at the day's end
SPEC: dict[str, Any] = {
    "task": "classify",
    "data": {"dataset": "digits"},
    "optimizer": {"warmup_steps": 2},
    "train": {"steps": 20, "batch_size": 8, "eval_every": 10, "checkpoint_every": 10},
}


@dataclass(frozen=True)
class DayPlan:
    """`load` is the share of all slots that the day's work would fill if nothing ever died."""

    seed: int = 1
    hours: float = 24.0
    workers: int = 50
    load: float = 0.6
    tick_s: float = 180.0  # between two heartbeats of a worker, on average


class Day:
    """`live` runs all events; each is one call of the product, checked afterwards."""

    def __init__(self, wanted: DayPlan, clock: VirtualClock) -> None:
        self.plan, self.clock = wanted, clock
        self.dice = random.Random(wanted.seed)
        self.monitor = Monitor()
        self.did: Counter[str] = Counter()
        self.bells: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
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
        heapq.heappush(self._events, (self.clock.seconds + delay, self._order, event))

    def live(self) -> None:
        """Run until all runs have ended."""
        with patch("experiments.queue.doorbell.app.send_task", self._ring), _rules():
            for worker in self.workers:
                self.at(self.dice.uniform(0, 60), worker.arrive)
            for number in range(2):
                self.at(10 + 30 * number, lambda number=number: self._reconcile(number))
            self.at(20, self._submit)
            self.at(600, self._cancel_or_retry)
            while self._events and not (self.clock.seconds > self.end_s and self._all_ended()):
                due, _, event = heapq.heappop(self._events)
                if due > self.end_s + TAIL_S:
                    break
                self.clock.advance(due)
                event()
                self.did["events"] += 1
                self.monitor.look(due)
            self._check_starvation()
            self.monitor.close(self.clock.seconds)

    # --- The broker: doorbells are lost and doubled ---

    def _ring(self, name: str, *, args: list[int], queue: str, **options: Any) -> None:
        chance = self.dice.random()
        copies = 0 if chance < 0.05 else 2 if chance < 0.1 else 1
        self.did["bells lost"] += copies == 0
        for _ in range(copies):
            idle = [worker for worker in self.workers if worker.idle and worker.pool == queue]
            if idle:
                self.at(self.dice.uniform(0.05, 3), self.dice.choice(idle).doorbell)

    # --- Two reconcilers; the leader dies now and then ---

    def _reconcile(self, number: int) -> None:
        acted = self.reconcilers[number].tick()
        dies = acted and self.dice.random() < 0.004
        self.did["reconciler deaths"] += dies
        if dies:
            self.reconcilers[number] = Reconciler(f"next {self.did['events']}", lambda: self.clock.seconds)
        self.at(self.dice.uniform(120, 900) if dies else RECONCILE_S, lambda: self._reconcile(number))
        if number == 0 and self.did["events"] % 8 == 0:
            self._check_starvation()

    def _check_starvation(self) -> None:
        """Runs that have been queued for too long."""
        for pk, history in self.monitor.histories.items():
            if history.state == State.QUEUED and self.clock.seconds - history.since > STARVED_S:
                self.monitor.violate(self.clock.seconds, f"run {pk} starves in the queue since {history.since:.0f} s")

    # --- People ---

    def _submit(self) -> None:
        """Submit an experiment of a few seeds, and plan the next so that the load is as wanted."""
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
        seconds = len(wanted.runs) * steps / 5 * self.plan.tick_s / (self.plan.workers * self.plan.load)
        self.at(self.dice.expovariate(1 / max(seconds, 1.0)), self._submit)

    def _cancel_or_retry(self) -> None:
        """Cancel an open run, or retry a cancelled one."""
        self.at(self.dice.expovariate(1 / 900), self._cancel_or_retry)
        user = self.dice.choice(self.users)
        if self.dice.random() < 0.3:
            run = Run.objects.filter(state=State.CANCELLED).order_by("pk").first()
            if run and self.clock.seconds < self.end_s:
                self.did["retries"] += 1
                lifecycle.retry(run.pk, user)
        else:
            states = Q(state__in=(*HELD, State.QUEUED))
            open_runs = list(Run.objects.filter(states).order_by("pk").values_list("pk", flat=True))
            if open_runs:
                self.did["cancels"] += 1
                lifecycle.request_cancel(self.dice.choice(open_runs), user)

    def _all_ended(self) -> bool:
        return all(history.state in ENDED for history in self.monitor.histories.values())

    def figures(self) -> dict[str, Any]:
        """What happened, for the table."""
        ends = Counter(history.state for history in self.monitor.histories.values())
        return {
            "seed": self.plan.seed,
            "hours": self.plan.hours,
            "workers": self.plan.workers,
            "virtual hours until all had ended": round(self.clock.seconds / 3600, 2),
            "runs": len(self.monitor.histories),
            **{f"runs {state}": ends[state] for state in ENDED},
            **dict(sorted(self.did.items())),
            "leases taken back": self.monitor.counts["taken back"],
            "runs looked at": self.monitor.checks,
            "longest wait in minutes": round(self.monitor.longest_wait / 60, 1),
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
