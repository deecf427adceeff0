"""Who this worker is: set in the main process before its slots are forked, read in the slots."""

from __future__ import annotations

import os
from dataclasses import dataclass

from experiments.lifecycle import beat_worker, register_worker, retire_worker
from experiments.models import Worker
from workers.supervisor.machine import machine


@dataclass(frozen=True)
class Identity:
    """A worker's name, the pools it takes from, and how many runs at once."""

    name: str
    pools: list[str]
    slots: int
    pid: int

    def register(self) -> Worker:
        """Write the row that says what this worker is."""
        device, facts = machine.device(), machine.facts()
        return register_worker(self.name, machine.host(), self.pid, self.pools, self.slots, device, facts)

    def beat(self, backlog: int) -> Worker:
        """Say that the worker is alive and how many bytes it holds back; a row that has gone is written again."""
        try:
            return beat_worker(self.name, backlog)
        except Worker.DoesNotExist:
            return self.register()

    def retire(self) -> None:
        """Say goodbye."""
        retire_worker(self.name, self.pid)

    def row(self) -> Worker:
        """The worker's row, for a claim."""
        return Worker.objects.filter(name=self.name).first() or self.register()


_identity: Identity | None = None


def set_identity(name: str, pools: list[str], slots: int) -> Identity:
    """Called once, in the main process."""
    global _identity
    _identity = Identity(name, pools, slots, os.getpid())
    return _identity


def this_worker() -> Identity:
    """This worker. Asserts that `set_identity` came first."""
    assert _identity is not None, "the worker has not been introduced"
    return _identity
