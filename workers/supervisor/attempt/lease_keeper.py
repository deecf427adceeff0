"""What a supervisor owes to the clock while its trainer works: the lease, the user's wish, the drain, the log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from functools import partial
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
        self.held = held
        self.trainer = trainer
        self.database = Database(self.urgent)
        self.stop_reason: StopReason | None = None
        self.breach: Breach | None = None  # what the run did wrong
        self._watchdog: Watchdog | None = None
        self._scratch: Path | None = None
        self.kill_cause = ""  # why the supervisor killed the trainer, in words
        self.recorded = False  # whether the row says that the run is stopping
        self._deadline = 0.0
        self._warned: set[str] = set()  # kinds of warnings
        self._unwritten: list[tuple[str, str, str]] = []
        self.quotas = Quotas(self.warn)
        self._chunk = ""
        self._spooling = False
        now = time.monotonic()
        self._began = now
        self._renew_at = now + settings.ATTN_BEAT_S
        self._poll_at = now
        self._log_at = now

    def tick(self) -> None:
        """Do what is due now."""
        self.urgent()
        with contextlib.suppress(Away):
            self._renew_or_poll()
            if self.stop_reason and not self.recorded:
                self.database.once(partial(lifecycle.stopping, self.held, why=_STOP_TEXT[self.stop_reason]))
                self.recorded = True
            self.write_log()
            self.write_warnings()

    def urgent(self) -> None:
        """The part that needs no database: hear the drain, end a trainer that has used up its time."""
        if drain.requested() and self.stop_reason is None:
            self._request_stop("preempt", settings.ATTN_STOP_GRACE_S)
        now = time.monotonic()
        self._report_backlog()
        self._check_run()
        if self.out_of_time and self.trainer.alive:
            self._kill(f"it did not stop in time after a {self.stop_reason}")
        if not self.trainer.ready and now > self._began + limits.START_S:
            self._kill(f"it said nothing within {limits.START_S} s")
        if drain.shutting_down() and now > self._deadline + limits.TERM_GRACE_S and not self.database.answers:
            raise DatabaseGone("the worker must go while the database is away")

    def start_watchdog(self, spec: Mapping[str, Any], spent: float, scratch: Path) -> None:
        """From now on, the orders being given, end a trainer that passes a limit or makes no step."""
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
        """Tell how much waits to be stored, and once in the log when it goes to disk."""
        inbox = self.trainer.inbox
        backlog.report(inbox.backlog)
        if inbox.spooled and not self._spooling:
            log.warning("run %s: spooling to disk: %d bytes wait to be stored", self.held.run_id, inbox.backlog)
        self._spooling = bool(inbox.spooled)

    @property
    def out_of_time(self) -> bool:
        """Whether a stop has used up its grace."""
        return self.stop_reason is not None and time.monotonic() > self._deadline

    def write_log(self, *, all_of_it: bool = False) -> None:
        """Write a chunk of the log about once a second."""
        now = time.monotonic()
        if now < self._log_at and not all_of_it:
            return
        self._log_at = now + limits.LOG_EVERY_S
        while chunk := self._chunk or self.trainer.journal.take():
            self._chunk = chunk  # kept until it is written
            self.database.once(partial(lifecycle.add_log, self.held, chunk))
            self._chunk = ""
            if not all_of_it:
                return

    def warn(self, kind: str, words: str, over: str = "") -> None:
        """Tell users something that does not end the run, when the database answers: once for each kind, or once
        again after `resolve` has said that it is `over`."""
        if kind not in self._warned:
            self._warned.add(kind)
            self._unwritten.append((kind, words, over))
            log.warning("run %s: %s: %s", self.held.run_id, kind, words)

    def resolve(self, kind: str, over: str, words: str) -> None:
        """Tell that what `kind` warned of is over; nothing where nobody was warned."""
        if kind in self._warned:
            self._warned.discard(kind)
            self._unwritten.append((over, words, kind))

    def write_warnings(self) -> None:
        """Write what is to be told."""
        self.quotas.log(self.trainer.journal.full)
        while self._unwritten:
            kind, words, over = self._unwritten[0]
            self.database.once(partial(lifecycle.warn, self.held, kind, words, again_after=over))
            del self._unwritten[0]

    def _renew_or_poll(self) -> None:
        """Renew the lease, or between renewals only read what the user wants."""
        now = time.monotonic()
        if now >= self._renew_at:
            desired = self.database.once(partial(lifecycle.renew, self.held))
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


_STOP_TEXT: dict[StopReason, str] = {"cancel": "cancel asked", "preempt": "the worker is going away"}
