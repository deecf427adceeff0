"""Which process is killed or frozen, and when: drawn from a seed, so that a series of faults can be repeated."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

from tests.chaos.cluster import LEASE_S, Cluster, is_trainer

KINDS = {"web": 2, "reconciler": 2, "worker": 2, "slot": 2, "trainer": 4, "host": 1, "redis": 2, "database": 2}
ORPHAN_S = 10.0
_WITHIN = ("slot", "trainer", "worker")
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """`which` chooses among the living processes, as a fraction; `freeze_s` is 0 for kill -9."""

    wait_s: float
    kind: str
    which: float
    freeze_s: float


def draw_faults(seed: int, pace_s: float, *, database: bool) -> Iterator[Fault]:
    """An endless series. One in six only freezes, for up to two leases."""
    draw = random.Random(seed)
    weights = {kind: weight for kind, weight in KINDS.items() if database or kind != "database"}
    while True:
        (kind,) = draw.choices(list(weights), list(weights.values()))
        freeze = draw.uniform(0.5, 2 * LEASE_S) if draw.random() < 1 / 6 else 0.0
        yield Fault(draw.uniform(0.5, 1.5) * pace_s, kind, draw.random(), freeze)


@dataclass
class FaultInjector:
    """Injects the faults. Call `tick` often: it also resumes, restarts and looks for orphans."""

    cluster: Cluster
    series: Iterator[Fault]
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    orphans: list[str] = field(default_factory=list)
    _frozen: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)
    _parentless: list[tuple[float, psutil.Process]] = field(default_factory=list)
    _next: Fault | None = None
    _due: float = 0.0

    def tick(self, *, inject: bool) -> None:
        now = time.monotonic()
        self._resume(now)
        self.cluster.revive()
        self._look_for_orphans(now)
        if not inject:
            return
        if self._next is None:
            self._next = next(self.series)
            self._due = now + self._next.wait_s
        elif now >= self._due and (self._inject(self._next) or now >= self._due + 5):
            self._next = None

    def resume_all(self) -> None:
        """Resume all frozen processes."""
        self._resume(float("inf"))

    def _inject(self, fault: Fault) -> bool:
        """False if no process of that kind is alive."""
        targets = self._targets(fault)
        if not targets:
            return False
        if fault.freeze_s:
            self._signal(targets, signal.SIGSTOP)
            self._frozen.append((time.monotonic() + fault.freeze_s, targets))
            self.freezes[fault.kind] += 1
        else:
            self._mark_parentless(targets)
            self._kill(fault.kind, targets)
            self.kills[fault.kind] += 1
        return True

    def _targets(self, fault: Fault) -> list[psutil.Process]:
        """One process; of a host and a database all."""
        match fault.kind:
            case "redis":
                return _alive([self.cluster.redis._process])
            case "database":
                assert self.cluster.postgres is not None
                return _family(self.cluster.postgres._process)
            case "host":
                return next(iter(_pick([process.family() for process in self.cluster.workers], fault.which)), [])
        return _pick(self._members(fault.kind), fault.which)

    def _members(self, kind: str) -> list[psutil.Process]:
        families = [process.family() for process in self.cluster.named("worker" if kind in _WITHIN else kind)]
        match kind:
            case "worker" | "reconciler":
                return [family[0] for family in families if family]
            case "slot":
                return [each for family in families for each in family[1:] if _parent(each) == family[0].pid]
            case "trainer":
                return [each for family in families for each in family if is_trainer(each)]
        return [each for family in families for each in family]

    def _kill(self, kind: str, targets: list[psutil.Process]) -> None:
        match kind:
            case "redis":
                self.cluster.redis.signal(signal.SIGKILL)
                self.cluster.redis.start()
            case "database":
                assert self.cluster.postgres is not None
                self.cluster.postgres.kill()
                self._signal(targets, signal.SIGCONT)  # frozen children would never end
                self.cluster.restart_database()
            case _:
                self._signal(targets, signal.SIGKILL)

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def _resume(self, now: float) -> None:
        for due, processes in list(self._frozen):
            if now >= due:
                self._signal(processes, signal.SIGCONT)
                self._frozen.remove((due, processes))

    def _mark_parentless(self, targets: list[psutil.Process]) -> None:
        """Trainers whose parent is killed now: none may live ten seconds later."""
        due = time.monotonic() + ORPHAN_S
        for target in targets:
            with contextlib.suppress(psutil.Error):
                self._parentless += [(due, child) for child in target.children(recursive=True) if is_trainer(child)]

    def _look_for_orphans(self, now: float) -> None:
        for due, trainer in [late for late in self._parentless if now >= late[0]]:
            self._parentless.remove((due, trainer))
            if is_trainer(trainer):
                self.orphans.append(f"trainer {trainer.pid} outlived its parent by {ORPHAN_S:.0f} s")


def _pick(candidates: list[T], which: float) -> list[T]:
    return [candidates[int(which * len(candidates))]] if candidates else []


def _alive(processes: list[object]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            alive.append(psutil.Process(process.pid))  # type: ignore[attr-defined]
    return alive


def _family(process: object) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        own = psutil.Process(process.pid)  # type: ignore[attr-defined]
        return [own, *own.children(recursive=True)]
    return []


def _parent(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.ppid())
    return 0
