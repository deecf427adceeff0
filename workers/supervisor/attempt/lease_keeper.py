"""What a supervisor does on time while its trainer works: renew the lease, obey cancel and drain, write the log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from experiments import lifecycle
from experiments.lifecycle import Held, LeaseLost
from experiments.models import Run
from experiments.states import Desired, Reason
from workers.protocol import Stop, StopReason
from workers.supervisor import limits
from workers.supervisor.attempt.database import Away, Database, DatabaseGone
from workers.supervisor.attempt.quotas import Quotas
from workers.supervisor.attempt.watchdog import Breach, Watchdog, dump_stacks
from workers.supervisor.machine import backlog, drain
from workers.supervisor.process.trainer_process import Trainer

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Call `tick` often. Raises LeaseLost and DatabaseGone; everything else waits for the next call."""

    def __init__(self, held: Held, trainer: Trainer) -> None:
        self.held, self.trainer = held, trainer
        self.database = Database(self.urgent)
        self.stop_reason: StopReason | None = None
        self.breach: Breach | None = None  # what the run did wrong
        self._watchdog: Watchdog | None = None
        self._scratch: Path | None = None
        self.kill_cause = ""  # why the supervisor killed the trainer
        self.recorded = False  # whether the row says that the run is stopping
        self._deadline = 0.0
        self._warned: set[str] = set()  # kinds of warnings
        self._unwritten: list[tuple[str, str, str]] = []
        self.quotas = Quotas(self.warn)
        self._chunk = ""
        self._spooling = False
        self._began = self._poll_at = self._log_at = time.monotonic()
        self._renew_at = self._began + settings.ATTN_BEAT_S

    def tick(self) -> None:
        """Do what is due now."""
        self.urgent()
        with contextlib.suppress(Away):
            self._renew_or_poll()
            if self.stop_reason and not self.recorded:
                self.database.once(lifecycle.stopping, self.held, why=_STOP_TEXT[self.stop_reason])
                self.recorded = True
            self.write_log()
            self.write_warnings()

    def urgent(self) -> None:
        """The part that needs no database: obey a drain, report the backlog, kill a trainer that is out of time."""
        if drain.requested() and self.stop_reason is None:
            self._request_stop("preempt", settings.ATTN_STOP_GRACE_S)
        now = time.monotonic()
        self._report_backlog()
        self._check_run()
        if self.out_of_time and self.trainer.alive:
            self._kill(f"it did not stop in time after a {self.stop_reason}")
        if not self.trainer.ready and now > self._began + limits.START_S:
            self._kill(f"it sent nothing within {limits.START_S} s")
        if drain.shutting_down() and now > self._deadline + limits.TERM_GRACE_S and not self.database.answers:
            raise DatabaseGone("the worker shuts down while the database is away")

    def start_watchdog(self, spec: Mapping[str, Any], spent: float, scratch: Path) -> None:
        """From now on kill a trainer that passes a limit or makes no step."""
        self._watchdog, self._scratch = Watchdog(spec, spent, self.trainer), scratch

    def _check_run(self) -> None:
        if self._watchdog is None or self._scratch is None or self.breach or self.stop_reason:
            return
        self.breach = self._watchdog.check()
        if self.breach:
            if self.breach.reason == Reason.STUCK:
                dump_stacks(self.trainer, self._scratch)
            self._kill(self.breach.text)

    def _report_backlog(self) -> None:
        """Report how much waits to be stored, and log once when it goes to disk."""
        inbox = self.trainer.inbox
        backlog.report(inbox.backlog)
        if inbox.spooled and not self._spooling:
            log.warning("run %s: spooling to disk: %d bytes wait to be stored", self.held.run_id, inbox.backlog)
        self._spooling = bool(inbox.spooled)

    @property
    def out_of_time(self) -> bool:
        """Whether the grace period of a stop is over."""
        return self.stop_reason is not None and time.monotonic() > self._deadline

    def write_log(self, *, all_of_it: bool = False) -> None:
        """Write a chunk of the log about once a second."""
        now = time.monotonic()
        if now < self._log_at and not all_of_it:
            return
        self._log_at = now + limits.LOG_EVERY_S
        while chunk := self._chunk or self.trainer.journal.take():
            self._chunk = chunk  # kept until it is written
            self.database.once(lifecycle.add_log, self.held, chunk)
            self._chunk = ""
            if not all_of_it:
                return

    def warn(self, kind: str, text: str, over: str = "") -> None:
        """Record an event that does not end the run, once for each kind, and again after `resolve` has recorded the
        event `over`."""
        if kind not in self._warned:
            self._warned.add(kind)
            self._unwritten.append((kind, text, over))
            log.warning("run %s: %s: %s", self.held.run_id, kind, text)

    def resolve(self, kind: str, over: str, text: str) -> None:
        """Record that what `kind` warned of is over, if it was warned of."""
        if kind in self._warned:
            self._warned.discard(kind)
            self._unwritten.append((over, text, kind))

    def write_warnings(self) -> None:
        """Write the recorded events."""
        self.quotas.log(self.trainer.journal.full)
        while self._unwritten:
            kind, text, over = self._unwritten[0]
            self.database.once(lifecycle.warn, self.held, kind, text, again_after=over)
            del self._unwritten[0]

    def _renew_or_poll(self) -> None:
        """Renew the lease, or between renewals only read whether the user cancelled."""
        now = time.monotonic()
        if now >= self._renew_at:
            desired = self.database.once(lifecycle.renew, self.held)
            self._renew_at = now + settings.ATTN_BEAT_S
        elif now >= self._poll_at:
            desired = self.database.once(self._read_desired)
        else:
            return
        self._poll_at = now + limits.POLL_S
        if desired == Desired.CANCEL and self.stop_reason != "cancel":
            self._request_stop("cancel", limits.CANCEL_GRACE_S)

    def _read_desired(self) -> Desired:
        row = Run.objects.filter(pk=self.held.run_id, fence=self.held.fence).values_list("desired", flat=True).first()
        if row is None:
            raise LeaseLost(f"run {self.held.run_id}: fence {self.held.fence} is outdated")
        return Desired(row)

    def _request_stop(self, why: StopReason, grace: float) -> None:
        deadline = time.monotonic() + grace
        if self.stop_reason is None:
            self.trainer.send(Stop(why=why))
        else:
            deadline = min(deadline, self._deadline)  # a cancel overtakes a preemption
        self.stop_reason, self._deadline = why, deadline
        log.info("run %s: stopping (%s)", self.held.run_id, why)

    def _kill(self, because: str) -> None:
        if not self.kill_cause:
            self.kill_cause = because
            log.warning("run %s: killing the trainer: %s", self.held.run_id, because)
        self.trainer.kill()


_STOP_TEXT: dict[StopReason, str] = {"cancel": "cancellation requested", "preempt": "the worker is shutting down"}
