"""Fifty workers with random deaths: the real verbs on the real database, a fake trainer, a clock of our own.

The database's clock is what leases are measured by, so time passes by moving its rows: an hour later every time that
is still to come lies an hour nearer.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from experiments import lifecycle, store
from experiments.lifecycle import Claim, LeaseLost
from experiments.models import Run
from experiments.reconciler import expire_silent
from experiments.states import ENDED, State

from .factories import frame, make_experiment, make_project, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]
# A tick is a minute: every worker that lives trains five steps in it.
RUNS = int(os.environ.get("ATTN_SIMULATED_RUNS", "40"))
WORKERS, LEASE_TICKS = 50, 2


class Day:
    def __init__(self, seed: int, runs: int) -> None:
        self.draw = random.Random(seed)
        self.workers = [make_worker(f"w{n}") for n in range(WORKERS)]
        self.held: dict[int, tuple[Claim, int]] = {}
        self.ghosts: list[tuple[Claim, int]] = []  # frozen: they come back and still think that they hold the run
        self.fences: dict[int, int] = {}
        self.ended: dict[int, str] = {}
        self.deaths = self.refused = 0
        for _ in range(4):
            make_experiment(make_project(), seeds=list(range(runs // 4)))

    def pass_a_minute(self) -> None:
        minute = timedelta(seconds=60)
        Run.objects.filter(lease_until__isnull=False).update(lease_until=F("lease_until") - minute)
        Run.objects.filter(next_at__isnull=False).update(next_at=F("next_at") - minute)

    def tick(self) -> None:
        self.pass_a_minute()
        for place, worker in enumerate(self.workers):
            if place not in self.held and (claim := lifecycle.claim(["cpu"], worker)):
                lifecycle.start(claim.held, pid=1, device="cpu", info={})
                self.held[place] = (claim, claim.start_step)
            elif place in self.held:
                self.work(place)
        self.wake_a_ghost()
        expire_silent()
        self.look()

    def work(self, place: int) -> None:
        claim, done = self.held.pop(place)
        chance = self.draw.random()
        if chance < 0.06:  # kill -9, or frozen for longer than the lease
            self.deaths += 1
            self.ghosts += [(claim, done)] if chance < 0.03 else []
        elif chance < 0.09:
            lifecycle.crash(claim.held, "killed by signal 9")
        elif chance < 0.11:
            lifecycle.release(claim.held)
        else:
            lifecycle.renew(claim.held)
            self.train(place, claim, done)

    def train(self, place: int, claim: Claim, done: int) -> None:
        lifecycle.commit(claim.held, done, done + 5, [frame(done, done + 5)])
        if (done + 5) % 10 == 0:
            facts: dict[str, Any] = {"path": f"{claim.held.run_id}-{done}", "sha256": "", "size": 1}
            lifecycle.publish_checkpoint(claim.held, step=done + 5, **facts)
        if done + 5 == claim.steps:
            lifecycle.succeed(claim.held)
        else:
            self.held[place] = (claim, done + 5)

    def wake_a_ghost(self) -> None:
        for claim, done in list(self.ghosts):
            if Run.objects.get(pk=claim.held.run_id).fence == claim.held.fence:
                continue  # its lease still stands
            self.ghosts.remove((claim, done))
            for write in (
                lambda claim=claim, done=done: lifecycle.commit(claim.held, done, done + 5, [frame(done, done + 5)]),
                lambda claim=claim: lifecycle.succeed(claim.held),
                lambda claim=claim: lifecycle.renew(claim.held),
            ):
                with pytest.raises(LeaseLost):
                    write()
                self.refused += 1

    def look(self) -> None:
        """The invariants, after every minute."""
        rows = list(Run.objects.values_list("pk", "fence", "state", "committed_step", "checkpoint_step"))
        assert len(rows) >= len(self.fences), "no run is lost"
        for pk, fence, state, committed, checkpoint in rows:
            assert fence >= self.fences.get(pk, 0), "fences only grow"
            assert committed >= checkpoint
            assert self.ended.get(pk, state) == state, "what has ended stays so"
            self.fences[pk] = fence
            if state in ENDED:
                self.ended[pk] = state


@pytest.mark.parametrize("seed", [1])
def test_whoever_dies_every_run_ends_once_and_has_each_point_once(seed: int, settings: Any) -> None:
    settings.ATTN_LEASE_S = 60 * LEASE_TICKS
    settings.ATTN_BACKOFF_S = 1
    settings.ATTN_CRASH_LIMIT = 1000
    day = Day(seed, RUNS)
    for _ in range(24 * 60):
        day.tick()
        if len(day.ended) == RUNS:
            break
    assert len(day.ended) == RUNS, "within a day"
    assert day.deaths > 5
    for run in Run.objects.all():
        assert run.state == State.SUCCEEDED
        assert run.events.filter(to_state=State.SUCCEEDED).count() == 1
        (series,) = store.read([run.pk], ["loss/total"])
        assert series.steps.tolist() == list(range(run.steps))
        fences = list(run.attempts.order_by("pk").values_list("fence", flat=True))
        assert fences == sorted(set(fences))
