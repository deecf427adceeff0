"""One attempt from its claim to its end: sends the orders, and writes each message of the trainer under the fence.

Runs in the main thread of a Celery slot and keeps the order of messages: a checkpoint is published before the next
flush is committed, and the attempt ends after everything that was sent before."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from attnservice.logs import about
from experiments import lifecycle
from experiments.lifecycle import Claim, LeaseLost, NotAllowed
from experiments.states import Reason
from experiments.store import Incoming
from workers import files, frames, protocol
from workers.supervisor import limits
from workers.supervisor.attempt.database import DatabaseGone
from workers.supervisor.attempt.lease_keeper import LeaseKeeper
from workers.supervisor.attempt.orphans import BIRTH, birth, kill_orphans
from workers.supervisor.attempt.quotas import cut
from workers.supervisor.attempt.uploads import StorageFailed, Uploads
from workers.supervisor.attempt.watchdog import STACKS
from workers.supervisor.machine import backlog, drain
from workers.supervisor.process import spare
from workers.supervisor.process.inbox import End
from workers.supervisor.process.journal import clean
from workers.supervisor.process.trainer_process import Trainer, describe_exit

log = logging.getLogger(__name__)
Settle = Callable[[], None]  # the lifecycle call that ends the attempt


def supervise(claim: Claim) -> None:
    """Execute a claimed run until its attempt has ended."""
    attempt = Supervision(claim, spare.take())
    run = claim.held.run_id
    try:
        with about(run, claim.held.fence):
            attempt.execute()
    except LeaseLost as lost:
        log.warning("run %s: %s; the trainer is killed and nothing more is written", run, lost)
    except DatabaseGone as gone:
        log.error("run %s: %s; its lease will expire", run, gone)
    finally:
        attempt.close()


class Supervision:
    """The state of one attempt."""

    def __init__(self, claim: Claim, trainer: Trainer) -> None:
        self.claim, self.held = claim, claim.held
        self.trainer, self.journal = trainer, trainer.journal
        self.keeper = LeaseKeeper(claim.held, trainer)
        self._persist = self.keeper.database.persist
        self._claimed = time.monotonic()
        self._scratch: Path | None = None
        self._uploads = Uploads(self.keeper)
        self._names: dict[str, list[str]] = {}
        self._kept: dict[str, list[int]] = {}  # columns within the limits
        self._ready: protocol.Ready | None = None
        self._ordered = 0.0

    def execute(self) -> None:
        """Prepare the trainer, follow it, end it, and record how the attempt ended."""
        settle = self._guarded(self._work)
        self.trainer.end()
        self._persist(self.keeper.write_log, all_of_it=True)
        self._persist(self.keeper.write_warnings)
        try:
            self._persist(settle)
        except ValueError as error:  # such as success announced before the last step
            self._persist(lifecycle.crash, self.held, clean(str(error)))
        self._persist(lifecycle.seal_finished, self.held.run_id)

    def _work(self) -> Settle:
        self._prepare()
        return self._follow()

    def _guarded(self, work: Callable[[], Settle]) -> Settle:
        try:
            return work()
        except (StorageFailed, NotAllowed) as error:
            if self.keeper.stop_reason:
                return self._stopped()
            self.journal.add(f"error: {error}")
            return partial(lifecycle.fail, self.held, Reason.STORAGE, str(error))
        except (LeaseLost, DatabaseGone):
            raise
        except Exception as error:  # a bug here or an invalid message counts as a crash
            log.exception("run %s: the supervisor failed", self.held.run_id)
            return partial(lifecycle.crash, self.held, f"the supervisor failed: {clean(repr(error))}")

    def close(self) -> None:
        """End every process of the trainer's group and delete the scratch folder."""
        self.trainer.end(grace=0)
        backlog.report(0)
        self._uploads.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # --- Start ---

    def _prepare(self) -> None:
        """Kill orphans, open the scratch folder, fetch the checkpoint and send the orders."""
        self._persist(kill_orphans, self.held)
        self._scratch = files.open_scratch(self.held)
        checkpoint = self._resume(self._scratch)
        claim = self.claim
        elapsed = time.monotonic() - self._claimed
        orders = protocol.Orders(
            run=self.held.run_id,
            fence=self.held.fence,
            spec=claim.spec,
            scratch=str(self._scratch),
            start_step=claim.start_step,
            checkpoint=checkpoint,
            forked=claim.forked,
            parent=claim.parent,
            time_offset=claim.time_offset + elapsed if claim.time_offset else 0.0,
        )
        self._ordered = time.time()
        self.trainer.send(orders)
        self._persist(self.keeper.quotas.load, self.held.run_id)
        self.keeper.start_watchdog(claim.spec, claim.spent, self._scratch)
        files.discard(claim.surplus)

    def _resume(self, scratch: Path) -> str | None:
        """Fetch the newest intact checkpoint; None to start at step 0."""
        while (checkpoint := self.claim.checkpoint) is not None:
            try:
                local = self._uploads.run(files.fetch, checkpoint.path, checkpoint.sha256, scratch)
            except files.Damaged as damaged:
                self.journal.add(f"warning: {damaged}")
                self.claim = self._persist(lifecycle.fall_back, self.claim, str(damaged))
                continue
            self.journal.add(f"resuming at step {self.claim.start_step}")
            return str(local)
        return None

    def _follow(self) -> Settle:
        """Handle messages until one ends the attempt, or the trainer's pipe closes."""
        while True:
            self.keeper.tick()
            item = self.trainer.inbox.get(limits.TICK_S)
            if item is None:
                if not self.trainer.alive:
                    self.trainer.kill()  # its children may hold the pipe open
                continue
            if isinstance(item, End):
                return self._ended_silently(item)
            settle = self._handle(*item)
            if settle is not None:
                return settle

    # --- Messages ---

    def _handle(self, message: Any, payload: bytes) -> Settle | None:
        match message:
            case protocol.Ready():
                self._ready = message
            case protocol.Started():
                self._start(message)
            case protocol.Schema():
                self._names[message.group] = message.names
                self._kept[message.group] = self.keeper.quotas.names(message.group, message.names)
            case protocol.Flush():
                self._commit(message, payload)
            case protocol.Log():
                self.journal.add(message.text if message.level == "info" else f"{message.level}: {message.text}")
            case protocol.Artifact():
                self._keep_artifact(message)
            case protocol.Checkpoint():
                self._publish(message)
            case _:
                return self._settle_of(message)
        return None

    def _settle_of(self, message: Any) -> Settle:
        match message:
            case protocol.Result():
                return partial(lifecycle.succeed, self.held)
            case protocol.Failure():
                detail = f"{message.message}\n{message.traceback}".strip().replace("\x00", "\ufffd")
                self.journal.add(f"error: {message.message}")
                return partial(lifecycle.fail, self.held, Reason(message.reason), detail)
            case protocol.Stopped():
                return self._stopped()
        raise ValueError(f"a trainer does not send {message!r}")

    def _start(self, message: protocol.Started) -> None:
        if self.keeper.recorded:
            return  # the run is stopping already
        ready = self._ready.model_dump(exclude={"type"}) if self._ready else {}
        info = {
            **ready,
            **message.model_dump(exclude={"type"}),
            BIRTH: birth(self.trainer.pid),
            "ordered": self._ordered,
            "source": self.trainer.source,
        }
        self._persist(lifecycle.start, self.held, pid=self.trainer.pid, device=message.device, info=info)

    def _commit(self, message: protocol.Flush, payload: bytes) -> None:
        incoming: list[Incoming] = []
        for group, data in protocol.split_payload(message, payload):
            if kept := self._kept[group]:
                incoming.append(cut(group, self._names[group], kept, frames.decode(data)))
        self._persist(lifecycle.commit, self.held, message.lo, message.hi, incoming)
        if not drain.requested():
            spare.prepare()  # the next run's trainer imports torch while this one trains

    def _publish(self, message: protocol.Checkpoint) -> None:
        name, size = self._keep(message.path, Path(message.path).name)
        publish = lifecycle.publish_checkpoint
        surplus = self._persist(publish, self.held, step=message.step, path=name, sha256=message.sha256, size=size)
        files.discard(surplus)
        self._persist(lifecycle.seal, self.held)

    def _keep_artifact(self, message: protocol.Artifact) -> None:
        assert self._scratch is not None
        local = files.inside(self._scratch, message.path)
        if not self.keeper.quotas.admits(message, local.stat().st_size):
            local.unlink()
            return
        step = "end" if message.step is None else str(message.step)
        name, size = self._keep(message.path, message.kind, step, Path(message.path).name)
        self._persist(
            lifecycle.add_artifact,
            self.held,
            kind=message.kind,
            name=message.name,
            step=message.step,
            media_type=message.media_type,
            path=name,
            size=size,
            meta=message.meta,
        )

    # --- Storage ---

    def _keep(self, path: str, *parts: str) -> tuple[str, int]:
        assert self._scratch is not None
        local = files.inside(self._scratch, path)
        size = local.stat().st_size
        return self._uploads.run(files.keep, local, files.stored_name(self.held, *parts)), size

    # --- End ---

    def _ended_silently(self, end: End) -> Settle:
        """The trainer's pipe closed before it sent how it ended."""
        self.trainer.wait(limits.TERM_GRACE_S)
        status = self.trainer.end(grace=0)
        if self.keeper.stop_reason:
            return self._stopped()
        killed = self.keeper.kill_cause
        cause = f"the trainer was killed: {killed}" if killed else describe_exit(status)
        detail = "\n".join(filter(None, [cause, end.error, *self.journal.tail]))
        self.journal.add(f"error: {cause}")
        breach = self.keeper.breach
        if breach is not None and breach.reason == Reason.LIMIT:
            return partial(lifecycle.fail, self.held, Reason.LIMIT, f"stopped: {breach.text}")
        if breach is not None:
            self._keep_stacks()
            return partial(lifecycle.crash, self.held, detail, breach.reason, f"stuck: {breach.text}")
        return partial(lifecycle.crash, self.held, detail)

    def _keep_stacks(self) -> None:
        """Keep a stuck trainer's stacks as a file of the run; without a step, so that no truncation deletes it."""
        assert self._scratch is not None
        path = self._scratch / STACKS
        if path.exists() and path.stat().st_size:
            name = f"stacks-{self.held.fence}.txt"
            self._keep_artifact(protocol.Artifact(kind="file", name=name, path=str(path), media_type="text/plain"))

    def _stopped(self) -> Settle:
        move = lifecycle.cancelled if self.keeper.stop_reason == "cancel" else lifecycle.release
        return partial(move, self.held)
