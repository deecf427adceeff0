"""A trainer without torch for tests of the protocol: it really is a process, speaks the real protocol and writes
real files, but what it "measures" is a formula, so that every stored point can be checked.

It trains `spec.train.steps` steps and does what the JSON in the file SCRIPTED_TRAINER says:
pace         seconds a step, 0.005 unless told
hold_at      waits at this step until the file says otherwise, or until it is told to stop
crash_at     kills itself at this step, on the first attempt only
crash_always kills itself at this step, on every attempt
fail_at      announces a failure at this step
stuck_at     waits at this step, deaf to a stop, until the file says otherwise
eat_mb       holds so much memory
mute         never stops when told to
spawn        starts a child that would outlive it
log_lines    lines of log at every step
names        so many more series
pictures     so many files at every checkpoint
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from workers import frames
from workers.protocol import (
    PARENT_PID,
    PIPE_FD,
    Artifact,
    Checkpoint,
    Failure,
    Flush,
    GroupFrame,
    Log,
    Orders,
    Ready,
    Result,
    Schema,
    Started,
    Stop,
    Stopped,
    receive,
    write_message,
)

NAMES = ["loss/total", "lr"]
SCRIPT: dict[str, Any] = {}


def script() -> dict[str, Any]:
    """What the test wants now; SCRIPT is what it wanted when the orders came."""
    wanted: dict[str, Any] = json.loads(Path(os.environ["SCRIPTED_TRAINER"]).read_text())
    return wanted


def value(seed: int, step: int, column: int) -> float:
    """What is recorded: any attempt records the same."""
    return float(np.float32(1000.0 * seed + step + column / 4))


class Scripted:
    """One scripted training."""

    def __init__(self, orders: Orders, pipe: Any) -> None:
        self.orders, self.pipe = orders, pipe
        self.seed = int(orders.spec["seed"])
        self.steps = int(orders.spec["train"]["steps"])
        self.every = int(orders.spec["train"]["checkpoint_every"])
        self.began = time.monotonic()
        self.stop: Stop | None = None
        self.flushed = self.saved = orders.start_step

    def listen(self) -> None:
        for line in sys.stdin.buffer:
            message = receive(line)
            if isinstance(message, Stop) and not SCRIPT.get("mute"):
                self.stop = message

    def send(self, message: Any, payload: bytes = b"") -> None:
        write_message(self.pipe, message, payload)

    def run(self) -> None:
        threading.Thread(target=self.listen, daemon=True).start()
        if self.orders.checkpoint:
            kept = json.loads(Path(self.orders.checkpoint).read_text())
            assert kept == {"seed": self.seed, "step": self.orders.start_step}, kept
        if SCRIPT.get("spawn"):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print(f"child {child.pid}", flush=True)
        self.send(Started(device="scripted", parameters=1, sites=[]))
        self.send(Schema(group="train", names=NAMES))
        self.more = [f"more/{number}" for number in range(int(SCRIPT.get("names", 0)))]
        if self.more:
            self.send(Schema(group="flood", names=self.more))
        for step in range(self.orders.start_step, self.steps):
            self.step(step)
            if self.stop is not None:
                self.flush(step + 1)
                self.save(step + 1)
                return self.send(Stopped(why=self.stop.why, step=step + 1))
        self.flush(self.steps)
        self.save(self.steps)
        return self.send(Result(step=self.steps))

    def step(self, step: int) -> None:
        time.sleep(float(SCRIPT.get("pace", 0.005)))
        while script().get("hold_at") == step and self.stop is None:
            time.sleep(0.02)
        while script().get("stuck_at") == step:  # deaf, too
            time.sleep(0.02)
        self.ballast = bytearray(int(SCRIPT.get("eat_mb", 0)) * 2**20)
        for line in range(int(SCRIPT.get("log_lines", 0))):
            print(f"step {step} line {line}", flush=True)
        if step == SCRIPT.get("fail_at"):
            self.flush(step)
            self.send(Failure(reason="nan", message=f"loss/total is nan at step {step}", traceback="Traceback: here"))
            os._exit(1)
        if step == SCRIPT.get("crash_always") or (step == SCRIPT.get("crash_at") and self.orders.fence == 1):
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if (step + 1) % 5 == 0:
            self.flush(step + 1)
        if (step + 1) % self.every == 0 and step + 1 < self.steps:
            self.save(step + 1)

    def flush(self, hi: int) -> None:
        lo, self.flushed = self.flushed, hi
        if lo == hi:
            return
        steps = np.arange(lo, hi, dtype=np.int64)
        values = [[value(self.seed, int(step), column) for column in range(len(NAMES))] for step in steps]
        elapsed = self.orders.time_offset + time.monotonic() - self.began
        times = np.full(len(steps), elapsed, dtype=np.float64)
        data = frames.encode(frames.Frame(steps, times, np.asarray(values, dtype=np.float32)))
        groups = [GroupFrame(group="train", rows=len(steps), size=len(data))]
        if self.more:
            many = frames.encode(frames.Frame(steps, times, np.zeros((len(steps), len(self.more)), dtype=np.float32)))
            groups.append(GroupFrame(group="flood", rows=len(steps), size=len(many)))
            data += many
        self.send(Flush(lo=lo, hi=hi, groups=groups), data)

    def save(self, step: int) -> None:
        if step == self.saved:
            return
        self.saved = step
        self.flush(step)
        path = Path(self.orders.scratch) / f"checkpoint-{step}.json"
        path.write_text(json.dumps({"seed": self.seed, "step": step}))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.send(Checkpoint(step=step, path=str(path), sha256=digest, size=path.stat().st_size))
        picture = Path(self.orders.scratch) / f"picture-{step}.txt"
        picture.write_text(f"picture of step {step - 1}")
        name = "picture.txt"
        self.send(
            Artifact(kind="file", name=name, path=str(picture), media_type="text/plain", step=step - 1, meta={"n": 1})
        )
        for number in range(int(SCRIPT.get("pictures", 0))):
            flood = Path(self.orders.scratch) / f"flood-{step}-{number}.txt"
            flood.write_text("more")
            self.send(Artifact(kind="file", name=flood.name, path=str(flood), media_type="text/plain", step=step - 1))
        self.send(Log(text=f"saved step {step}"))


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PDEATHSIG
    if os.getppid() != int(os.environ[PARENT_PID]):
        sys.exit("my supervisor is gone")
    pipe = os.fdopen(int(os.environ[PIPE_FD]), "wb")
    write_message(pipe, Ready(pid=os.getpid(), torch="none", capability="none"))
    line = sys.stdin.buffer.readline()
    if not line:
        return
    orders = receive(line)
    assert isinstance(orders, Orders)
    SCRIPT.update(script())
    stacks = (Path(orders.scratch) / "stacks.txt").open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    Scripted(orders, pipe).run()


if __name__ == "__main__":
    main()
