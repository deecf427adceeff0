"""This worker's identity: set in the main process before its slots are forked, read in the slots."""

from __future__ import annotations

import os
from dataclasses import dataclass

from experiments.lifecycle import beat_worker, register_worker, retire_worker
from experiments.models import Worker
from workers.supervisor.machine import machine


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker's name, the pools it claims from, and how many runs at once."""

    name: str
    pools: list[str]
    slots: int
    pid: int

    def register(self) -> Worker:
        """Write the worker's row."""
        device, facts = machine.device(), machine.facts()
        return register_worker(self.name, machine.host(), self.pid, self.pools, self.slots, device, facts)

    def beat(self, backlog: int) -> Worker:
        """Write that the worker is alive and how many bytes wait; a missing row is written again."""
        try:
            return beat_worker(self.name, backlog)
        except Worker.DoesNotExist:
            return self.register()

    def retire(self) -> None:
        """Mark the worker as gone."""
        retire_worker(self.name, self.pid)

    def row(self) -> Worker:
        """The worker's row, which a claim needs."""
        return Worker.objects.filter(name=self.name).first() or self.register()


_identity: WorkerIdentity | None = None


def set_identity(name: str, pools: list[str], slots: int) -> WorkerIdentity:
    """Call once, in the main process."""
    global _identity
    _identity = WorkerIdentity(name, pools, slots, os.getpid())
    return _identity


def this_worker() -> WorkerIdentity:
    """This worker. Asserts that `set_identity` came first."""
    assert _identity is not None, "set_identity was not called"
    return _identity
