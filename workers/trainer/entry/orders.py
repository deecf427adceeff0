"""Carry out orders: train, and send how it ended."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from experiments.spec import SpecError, parse_spec
from workers.protocol import Failure, Orders, Result, Stopped, StopReason
from workers.trainer.data.errors import DataError
from workers.trainer.recording.recorder import NonFinite, Recorder
from workers.trainer.recording.sink import Send
from workers.trainer.training.checkpoint import CheckpointError
from workers.trainer.training.loop import Fork, train

MAX_MESSAGE = 8000  # characters of a user's mistake
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def carry_out(orders: Orders, send: Send, should_stop: Callable[[], StopReason | None]) -> bool:
    """True where training finished or was stopped on request."""
    arrived = time.monotonic()

    def elapsed() -> float:
        return orders.time_offset + time.monotonic() - arrived

    try:
        spec = parse_spec(orders.spec, stored=True)
        recorder = Recorder(send, elapsed, fail_on_nan=spec.train.on_nan == "fail")
        checkpoint = Path(orders.checkpoint) if orders.checkpoint else None
        fork = Fork(parse_spec(orders.parent, stored=True) if orders.parent else None) if orders.forked else None
        outcome = train(spec, recorder, should_stop, scratch=Path(orders.scratch), checkpoint=checkpoint, fork=fork)
    except BrokenPipeError:
        raise  # the supervisor is gone
    except Exception as error:
        send(failure(error))
        return False
    send(Stopped(why=outcome.stopped, step=outcome.step) if outcome.stopped else Result(step=outcome.step))
    return True


def failure(error: Exception) -> Failure:
    """A user's mistake as sentences, one a line; anything else with its traceback."""
    if isinstance(error, DataError | SpecError | CheckpointError):
        return Failure(reason=reason_of(error), message=str(error)[:MAX_MESSAGE])
    return Failure(reason=reason_of(error), message=_one_line(error), traceback=traceback.format_exc())


def reason_of(error: BaseException) -> Literal["error", "out_of_memory", "nan", "spec", "storage"]:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out_of_memory"
    if isinstance(error, NonFinite):
        return "nan"
    if isinstance(error, DataError):
        return error.reason
    if isinstance(error, SpecError | CheckpointError):
        return "spec"
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return "storage"
    return "error"


def _one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:500]
