"""One attempt from its claim to its end: orders out, messages in, each written under the fence.

Everything here runs in the main thread of a Celery slot. The order of a trainer's messages is kept: a
checkpoint is published before the next flush is committed, and an ending comes after all that was said.
"""

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
from workers import files, frames
from workers.protocol import Artifact, Checkpoint, Failure, Flush, Log, Orders, Ready, Result, Schema, Started, Stopped
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
Settle = Callable[[], None]  # the one move of lifecycle that ends the attempt


def supervise(claim: Claim) -> None:
    """Execute a claimed run to whatever end it comes to."""
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
    """The state of one attempt: what has been said so far, and who is to be told."""

    def __init__(self, claim: Claim, trainer: Trainer) -> None:
        self.claim = claim
        self.held = claim.held
        self.trainer = trainer
        self.journal = trainer.journal
        self.keeper = LeaseKeeper(claim.held, trainer)
        self._claimed = time.monotonic()
        self._scratch: Path | None = None
        self._uploads = Uploads(self.keeper)
        self._names: dict[str, list[str]] = {}
        self._kept: dict[str, list[int]] = {}  # columns within the limits
        self._ready: Ready | None = None
        self._ordered = 0.0

    def execute(self) -> None:
        """Prepare, follow, end the trainer, settle."""
        settle = self._guarded(self._work)
        self.trainer.end()
        self.keeper.database.persist(partial(self.keeper.write_log, all_of_it=True))
        self.keeper.database.persist(self.keeper.write_warnings)
        try:
            self.keeper.database.persist(settle)
        except ValueError as error:  # such as success announced before the last step
            self.keeper.database.persist(partial(lifecycle.crash, self.held, clean(str(error))))
        self.keeper.database.persist(partial(lifecycle.seal_finished, self.held.run_id))

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
        except Exception as error:  # a bug here, or a trainer that speaks nonsense: it counts as a crash
            log.exception("run %s: the supervisor failed", self.held.run_id)
            return partial(lifecycle.crash, self.held, f"the supervisor failed: {clean(repr(error))}")

    def close(self) -> None:
        """Leave nothing behind: no process of the group, no file in scratch."""
        self.trainer.end(grace=0)
        backlog.report(0)
        self._uploads.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # --- The way in ---

    def _prepare(self) -> None:
        """Make room, bring the checkpoint, give orders."""
        self.keeper.database.persist(partial(kill_orphans, self.held))
        self._scratch = files.open_scratch(self.held)
        checkpoint = self._resume(self._scratch)
        claim = self.claim
        elapsed = time.monotonic() - self._claimed
        orders = Orders(
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
        self.keeper.database.persist(partial(self.keeper.quotas.load, self.held.run_id))
        self.keeper.start_watchdog(claim.spec, claim.spent, self._scratch)
        files.discard(claim.surplus)

    def _resume(self, scratch: Path) -> str | None:
        """Bring the newest checkpoint that is still what was written; None to begin at step 0."""
        while (wanted := self.claim.checkpoint) is not None:
            try:
                local = self._uploads.run(partial(files.fetch, wanted.path, wanted.sha256, scratch))
            except files.Damaged as damaged:
                self.journal.add(f"warning: {damaged}")
                self.claim = self.keeper.database.persist(partial(lifecycle.fall_back, self.claim, str(damaged)))
                continue
            self.journal.add(f"resuming at step {self.claim.start_step}")
            return str(local)
        return None

    def _follow(self) -> Settle:
        """Read what the trainer says until it says how it ended, or falls silent."""
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

    # --- What a trainer says ---

    def _handle(self, message: Any, payload: bytes) -> Settle | None:
        match message:
            case Ready():
                self._ready = message
            case Started():
                self._start(message)
            case Schema():
                self._names[message.group] = message.names
                self._kept[message.group] = self.keeper.quotas.names(message.group, message.names)
            case Flush():
                self._commit(message, payload)
            case Log():
                self.journal.add(message.text if message.level == "info" else f"{message.level}: {message.text}")
            case Artifact():
                self._keep_artifact(message)
            case Checkpoint():
                self._publish(message)
            case _:
                return self._settle_of(message)
        return None

    def _settle_of(self, message: Any) -> Settle:
        match message:
            case Result():
                return partial(lifecycle.succeed, self.held)
            case Failure():
                detail = f"{message.message}\n{message.traceback}".strip().replace("\x00", "\ufffd")
                self.journal.add(f"error: {message.message}")
                return partial(lifecycle.fail, self.held, Reason(message.reason), detail)
            case Stopped():
                return self._stopped()
        raise ValueError(f"a trainer does not say {message!r}")

    def _start(self, message: Started) -> None:
        if self.keeper.recorded:
            return  # a stop came first: the run is stopping and stays so
        ready = self._ready.model_dump(exclude={"type"}) if self._ready else {}
        info = {
            **ready,
            **message.model_dump(exclude={"type"}),
            BIRTH: birth(self.trainer.pid),
            "ordered": self._ordered,
            "source": self.trainer.source,
        }
        call = partial(lifecycle.start, self.held, pid=self.trainer.pid, device=message.device, info=info)
        self.keeper.database.persist(call)

    def _commit(self, message: Flush, payload: bytes) -> None:
        incoming: list[Incoming] = []
        at = 0
        for part in message.groups:
            frame = frames.decode(payload[at : at + part.size])
            at += part.size
            if kept := self._kept[part.group]:
                incoming.append(cut(part.group, self._names[part.group], kept, frame))
        self.keeper.database.persist(partial(lifecycle.commit, self.held, message.lo, message.hi, incoming))
        if not drain.requested():
            spare.prepare()  # the next run's trainer imports torch while this one trains

    def _publish(self, message: Checkpoint) -> None:
        name, size = self._keep(message.path, Path(message.path).name)
        call = partial(
            lifecycle.publish_checkpoint,
            self.held,
            step=message.step,
            path=name,
            sha256=message.sha256,
            size=size,
        )
        files.discard(self.keeper.database.persist(call))
        self.keeper.database.persist(partial(lifecycle.seal, self.held))

    def _keep_artifact(self, message: Artifact) -> None:
        assert self._scratch is not None
        local = files.inside(self._scratch, message.path)
        if not self.keeper.quotas.admits(message, local.stat().st_size):
            local.unlink()
            return
        step = "end" if message.step is None else str(message.step)
        name, size = self._keep(message.path, message.kind, step, Path(message.path).name)
        call = partial(
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
        self.keeper.database.persist(call)

    # --- Storage ---

    def _keep(self, path: str, *parts: str) -> tuple[str, int]:
        assert self._scratch is not None
        local = files.inside(self._scratch, path)
        size = local.stat().st_size
        return self._uploads.run(partial(files.keep, local, files.stored_name(self.held, *parts))), size

    # --- The way out ---

    def _ended_silently(self, end: End) -> Settle:
        """The trainer is gone without a last word."""
        self.trainer.wait(limits.TERM_GRACE_S)
        status = self.trainer.end(grace=0)
        if self.keeper.stop_reason:
            return self._stopped()
        words = f"the trainer was killed: {self.keeper.kill_cause}" if self.keeper.kill_cause else describe_exit(status)
        detail = "\n".join(filter(None, [words, end.error, *self.journal.tail]))
        self.journal.add(f"error: {words}")
        breach = self.keeper.breach
        if breach is not None and breach.reason == Reason.LIMIT:
            return partial(lifecycle.fail, self.held, Reason.LIMIT, f"stopped: {breach.text}")
        if breach is not None:
            self._keep_stacks()
            return partial(lifecycle.crash, self.held, detail, breach.reason, f"stuck: {breach.text}")
        return partial(lifecycle.crash, self.held, detail)

    def _keep_stacks(self) -> None:
        """Where a stuck trainer stood, as a file of the run; no step, so that no truncation forgets it."""
        assert self._scratch is not None
        path = self._scratch / STACKS
        if path.exists() and path.stat().st_size:
            name = f"stacks-{self.held.fence}.txt"
            self._keep_artifact(Artifact(kind="file", name=name, path=str(path), media_type="text/plain"))

    def _stopped(self) -> Settle:
        move = lifecycle.cancelled if self.keeper.stop_reason == "cancel" else lifecycle.release
        return partial(move, self.held)
