"""A fake worker whose trainer only counts: it claims, writes, saves, renews, and dies, stalls or crashes at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from experiments import lifecycle, store
from experiments.lifecycle import Claim, LeaseLost
from experiments.models import Experiment
from experiments.states import Desired

if TYPE_CHECKING:
    from tests.chaos.workday import Day

POISON = "poison"  # the name of an experiment whose trainer always dies before its first checkpoint
STEPS_PER_TICK = 5
MISHAPS = {"die": 0.01, "stall": 0.01, "crash": 0.005, "preempt": 0.005}  # probability per tick


def points(lo: int, hi: int) -> store.Incoming:
    steps = np.arange(lo, hi)
    values = np.stack([steps, steps / 10], axis=1).astype(np.float32)
    return store.Incoming("train", ["loss/total", "lr"], steps, steps / 1.0, values)


class FakeWorker:
    """One slot. `tick` happens every few minutes while it lives."""

    def __init__(self, day: Day, number: int) -> None:
        self.day, self.name = day, f"simulated{number}"
        self.pool = "gpu" if number % 3 == 2 else "cpu"
        self.claim: Claim | None = None
        self.poisoned = False
        self.step = 0
        self.alive = False
        self._life = 0  # events planned in an earlier life are dropped

    @property
    def idle(self) -> bool:
        return self.alive and self.claim is None

    def arrive(self) -> None:
        """The process starts: it registers and rings for itself, as a real one does."""
        self.alive, self._life = True, self._life + 1
        self.row = lifecycle.register_worker(self.name, self.name, 1, [self.pool], 1, "cpu", {})
        self._soon(self.tick)
        self.doorbell()

    def doorbell(self) -> None:
        """Claim, unless another worker was faster."""
        if not self.idle:
            return
        self.claim = lifecycle.claim([self.pool], self.row)
        if self.claim is None:
            self.day.did["bells for nothing"] += 1
            return
        self._take(self.claim)

    def _take(self, claim: Claim) -> None:
        self.day.did["claims"] += 1
        if claim.checkpoint is not None and self.day.dice.random() < 0.01:
            self.day.did["damaged checkpoints"] += 1
            self.claim = claim = lifecycle.fall_back(claim, "the checkpoint is damaged")
        self.step = claim.start_step
        self.poisoned = Experiment.objects.filter(runs=claim.held.run_id, name=POISON).exists()
        lifecycle.start(claim.held, pid=1, device="cpu", info={})
        self._look(claim)

    def tick(self) -> None:
        """One heartbeat, and what the trainer has done meanwhile."""
        lifecycle.beat_worker(self.name)
        claim = self.claim
        if claim is None:
            return self._soon(self.tick)
        mishap = self._mishap()
        if mishap:
            self.day.did[mishap] += 1
        match mishap:
            case "die":
                return self._gone(300, 1800)
            case "stall":
                return self._freeze(claim)
            case "preempt":
                lifecycle.release(claim.held)
                lifecycle.retire_worker(self.name, 1)
                return self._gone(60, 1200)
            case "crash":
                self._settle(claim, lambda: lifecycle.crash(claim.held, "killed by signal 9"))
            case _:
                self._work(claim)
        return self._soon(self.tick)

    def _mishap(self) -> str:
        if self.poisoned:
            return "crash"
        (kind,) = self.day.dice.choices([*MISHAPS, ""], [*MISHAPS.values(), 1 - sum(MISHAPS.values())])
        return kind

    def _work(self, claim: Claim) -> None:
        """Five steps further, a checkpoint at every tenth; a cancel is obeyed here."""
        held = claim.held
        try:
            if lifecycle.renew(held) == Desired.CANCEL:
                return self._settle(claim, lambda: lifecycle.cancelled(held))
        except LeaseLost:  # it was late by itself
            self.day.did["leases lost without a stall"] += 1
            self.claim = None
            return self.doorbell()
        lo, hi = self.step, min(self.step + STEPS_PER_TICK, claim.spec["train"]["steps"])
        for _ in range(2 if self.day.dice.random() < 0.02 else 1):  # twice: after a lost answer
            lifecycle.commit(held, lo, hi, [points(lo, hi)])
        self.step = hi
        self.day.did["flushes"] += 1
        if hi % 10 == 0:
            self._save(claim, hi)
        if hi == claim.spec["train"]["steps"]:
            return self._settle(claim, lambda: lifecycle.succeed(held))
        return self._look(claim)

    def _save(self, claim: Claim, step: int) -> None:
        path = f"simulated/{claim.held.run_id}-{claim.held.fence}-{step}"
        lifecycle.publish_checkpoint(claim.held, step=step, path=path, sha256="", size=1)
        self.day.monitor.saved(claim.held.run_id)
        lifecycle.seal(claim.held)

    def _settle(self, claim: Claim, move: Callable[[], None]) -> None:
        """The attempt ends by one move; the slot claims again at once, as `workers.tasks.doorbell` does."""
        move()
        lifecycle.seal_finished(claim.held.run_id)
        self.claim = None
        self._look(claim)
        self.doorbell()

    def _gone(self, least: float, most: float) -> None:
        """It disappears; a new process of the same name starts later."""
        self.alive, self.claim, self._life = False, None, self._life + 1
        self.day.at(self.day.dice.uniform(least, most), self.arrive)

    # --- Frozen for longer than its lease, then resumed ---

    def _freeze(self, claim: Claim) -> None:
        self.alive, self._life = False, self._life + 1
        self.day.at(self.day.dice.uniform(1.3, 6) * self.day.lease_s, lambda: self._resume(claim))

    def _resume(self, claim: Claim) -> None:
        """If nobody took the run (no reconciler was alive), its writes are accepted; otherwise all are refused."""
        self.alive, self._life = True, self._life + 1
        if self.day.monitor.histories[claim.held.run_id].fence == claim.held.fence:
            self.day.did["thawed before anybody noticed"] += 1
            return self._soon(self.tick, most=5)
        for name, write in self._late(claim).items():
            try:
                write()
                self.day.monitor.violate(self.day.clock.seconds, f"stale {name} of {claim.held} was accepted")
            except LeaseLost:
                self.day.did["stale writes refused"] += 1
        self._look(claim)
        self.claim = None
        self._soon(self.tick)
        return self.doorbell()

    def _late(self, claim: Claim) -> dict[str, Callable[[], object]]:
        held, lo = claim.held, self.step
        hi = min(lo + STEPS_PER_TICK, claim.spec["train"]["steps"])
        facts = {"path": "late", "sha256": "", "size": 1}
        return {
            "flush": lambda: lifecycle.commit(held, lo, hi, [points(lo, hi)]),
            "renewal": lambda: lifecycle.renew(held),
            "checkpoint": lambda: lifecycle.publish_checkpoint(held, step=lo, **facts),  # type: ignore[arg-type]
            "success": lambda: lifecycle.succeed(held),
            "crash": lambda: lifecycle.crash(held, "late"),
            "log": lambda: lifecycle.add_log(held, "late"),
        }

    def _soon(self, event: Callable[[], None], most: float = math.inf) -> None:
        life = self._life
        delay = min(self.day.dice.uniform(0.6, 1.4) * self.day.plan.tick_s, most)
        self.day.at(delay, lambda: event() if self._life == life else None)

    def _look(self, claim: Claim) -> None:
        self.day.monitor.look(self.day.clock.seconds, claim.held.run_id)
