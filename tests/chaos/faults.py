"""Who is struck, how and when: all of it drawn from a seed, so that a bad series of blows can be dealt again."""

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

from tests.chaos.cluster import LEASE_S, Company, is_trainer

KINDS = {"web": 2, "reconciler": 2, "worker": 2, "slot": 2, "trainer": 4, "host": 1, "redis": 2, "database": 2}
ORPHAN_S = 10.0
_WITHIN = ("slot", "trainer", "worker")
T = TypeVar("T")


@dataclass(frozen=True)
class Blow:
    """`which` chooses among what lives then, as a fraction; `freeze_s` is 0 for kill -9."""

    wait_s: float
    kind: str
    which: float
    freeze_s: float


def blows(seed: int, pace_s: float, *, database: bool) -> Iterator[Blow]:
    """An endless series. One in six only freezes, for up to two leases."""
    draw = random.Random(seed)
    weights = {kind: weight for kind, weight in KINDS.items() if database or kind != "database"}
    while True:
        (kind,) = draw.choices(list(weights), list(weights.values()))
        freeze = draw.uniform(0.5, 2 * LEASE_S) if draw.random() < 1 / 6 else 0.0
        yield Blow(draw.uniform(0.5, 1.5) * pace_s, kind, draw.random(), freeze)


@dataclass
class Mischief:
    """Deals the blows. Call `tend` often: it also thaws, revives and looks for orphans."""

    company: Company
    series: Iterator[Blow]
    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    orphans: list[str] = field(default_factory=list)
    _frozen: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)
    _bereft: list[tuple[float, psutil.Process]] = field(default_factory=list)
    _next: Blow | None = None
    _due: float = 0.0

    def tend(self, *, strike: bool) -> None:
        now = time.monotonic()
        self._thaw(now)
        self.company.revive()
        self._look_for_orphans(now)
        if not strike:
            return
        if self._next is None:
            self._next = next(self.series)
            self._due = now + self._next.wait_s
        elif now >= self._due and (self._strike(self._next) or now >= self._due + 5):
            self._next = None

    def calm(self) -> None:
        """Nothing stays frozen."""
        self._thaw(float("inf"))

    def _strike(self, blow: Blow) -> bool:
        """False when nobody of that kind lives at the moment."""
        victims = self._victims(blow)
        if not victims:
            return False
        if blow.freeze_s:
            self._signal(victims, signal.SIGSTOP)
            self._frozen.append((time.monotonic() + blow.freeze_s, victims))
            self.freezes[blow.kind] += 1
        else:
            self._mark_bereft(victims)
            self._kill(blow.kind, victims)
            self.kills[blow.kind] += 1
        return True

    def _victims(self, blow: Blow) -> list[psutil.Process]:
        """One process, but for a host and a frozen database all of it."""
        match blow.kind:
            case "redis":
                return _alive([self.company.redis._process])
            case "database":
                assert self.company.postgres is not None
                return _family(self.company.postgres._process)
            case "host":
                return next(iter(_pick([kept.family() for kept in self.company.workers], blow.which)), [])
        found = self._members(blow.kind)
        return _pick(found, blow.which)

    def _members(self, kind: str) -> list[psutil.Process]:
        families = [kept.family() for kept in self.company.named("worker" if kind in _WITHIN else kind)]
        match kind:
            case "worker" | "reconciler":
                return [family[0] for family in families if family]
            case "slot":
                return [each for family in families for each in family[1:] if _parent(each) == family[0].pid]
            case "trainer":
                return [each for family in families for each in family if is_trainer(each)]
        return [each for family in families for each in family]

    def _kill(self, kind: str, victims: list[psutil.Process]) -> None:
        match kind:
            case "redis":
                self.company.redis.signal(signal.SIGKILL)
                self.company.redis.start()
            case "database":
                assert self.company.postgres is not None
                self.company.postgres.kill()
                self._signal(victims, signal.SIGCONT)  # frozen children would never notice, and none may start beside
                self.company.restart_database()
            case _:
                self._signal(victims, signal.SIGKILL)

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def _thaw(self, now: float) -> None:
        for due, processes in list(self._frozen):
            if now >= due:
                self._signal(processes, signal.SIGCONT)
                self._frozen.remove((due, processes))

    def _mark_bereft(self, victims: list[psutil.Process]) -> None:
        """Trainers whose parent is killed now: ten seconds later none of them may be left."""
        due = time.monotonic() + ORPHAN_S
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                self._bereft += [(due, child) for child in victim.children(recursive=True) if is_trainer(child)]

    def _look_for_orphans(self, now: float) -> None:
        for due, trainer in [late for late in self._bereft if now >= late[0]]:
            self._bereft.remove((due, trainer))
            if is_trainer(trainer):
                self.orphans.append(f"trainer {trainer.pid} outlived its parent by {ORPHAN_S:.0f} s")


_WITHIN = ("slot", "trainer", "worker")


def _pick(found: list[T], which: float) -> list[T]:
    return [found[int(which * len(found))]] if found else []


def _alive(processes: list[object]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(process.pid))  # type: ignore[attr-defined]
    return found


def _family(process: object) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        own = psutil.Process(process.pid)  # type: ignore[attr-defined]
        return [own, *own.children(recursive=True)]
    return []


def _parent(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.ppid())
    return 0
