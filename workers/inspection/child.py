"""The child process that answers questions: torch is imported, and the last models stay loaded."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time

from workers.inspection.protocol import AnswerMessage, QuestionMessage, Warm
from workers.supervisor.process.trainer_process import describe_exit, spawn

START_S = 120.0  # to import torch on a busy machine
_BLOCK = 2**16


class NoAnswer(Exception):
    """The child died or took too long and was ended; the next question starts another."""


class InspectionChild:
    """One question at a time. Create it in the main thread, which the parent-death signal follows."""

    def __init__(self) -> None:
        # Without a GPU: a question must not take its memory from a run.
        self.process, self._pipe = spawn(["workers.trainer", "answer"], gpu="")
        self._unread, self._warm = bytearray(), False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_warm(self, within_s: float = START_S) -> None:
        """Raises NoAnswer."""
        if not self._warm:
            Warm.model_validate_json(self._line(time.monotonic() + within_s))
            self._warm = True

    def ask(self, question: QuestionMessage, within_s: float) -> AnswerMessage:
        """Raises NoAnswer."""
        deadline = time.monotonic() + within_s
        self.wait_until_warm(within_s)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead child is noticed when its pipe closes
            self.process.stdin.write(question.bytes())
            self.process.stdin.flush()
        return AnswerMessage.model_validate_json(self._line(deadline))

    def _line(self, deadline: float) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._pipe, _BLOCK) if ready else b""
            if not block:
                raise NoAnswer(self._why(bool(ready)))
            self._unread += block
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    def _why(self, ended: bool) -> str:
        if not ended:
            self.end()
            return "the answer took too long and was given up"
        return describe_exit(self.end()).replace("the trainer", "the answering process")

    def end(self) -> int:
        """Kill it; the exit status."""
        if self.alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)  # one that is ending anyway keeps its own exit status
            self.process.kill()
        status = self.process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        return status
