"""Each architecture in a process of its own, with a limit of time and memory: what breaks one ends no other."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.lab.models.building import build
from tests.lab.models.judging import Verdict, judged
from tests.lab.models.listing import Architecture
from workers.trainer.tasks.hf.library import transformers

LIMIT_S = 60  # of processor time: another process beside it takes nothing away
MEMORY = 8 * 2**30


def warm() -> None:
    """Import what every model needs once, before processes are forked off."""
    torch.set_num_threads(1)
    transformers().utils.logging.set_verbosity_error()
    for one in (Architecture("transformers", "bert"), Architecture("timm", "vision_transformer")):
        build(one)


def verdicts(those: Sequence[Architecture], jobs: int) -> Iterator[dict[str, Any]]:
    """The verdict of each, in the order in which they end. Forks: the libraries are imported once."""
    waiting, running = list(reversed(those)), dict[int, tuple[Architecture, float]]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                what = waiting.pop()
                running[_start(what, Path(folder))] = (what, time.monotonic())
            for child, (what, since) in list(running.items()):
                ended, status, usage = os.wait4(child, os.WNOHANG)
                if ended:
                    del running[child]
                    yield {**_read(what, Path(folder), status), "cpu_s": round(usage.ru_utime + usage.ru_stime, 1)}
                elif time.monotonic() - since > 10 * LIMIT_S:
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.02)


def _file(what: Architecture, folder: Path) -> Path:
    return folder / f"{what.library}-{what.name}.json"


def _start(what: Architecture, folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _judge(what, folder)
    finally:
        os._exit(0)


def _judge(what: Architecture, folder: Path) -> None:
    warnings.simplefilter("ignore")
    try:
        found = judged(what).as_dict()
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        found = {"library": what.library, "name": what.name, "failed": " ".join(text.split())[:300]}
        if isinstance(error, MemoryError) or "can't allocate memory" in text:
            why = f"takes more than {MEMORY // 2**30} GiB in the smallest configuration found"
            found = Verdict(what.library, what.name, not_built=why).as_dict()
        if os.environ.get("ATTN_TRACE"):
            Path(os.environ["ATTN_TRACE"]).write_text(traceback.format_exc())
    _file(what, folder).write_text(json.dumps(found))


def _read(what: Architecture, folder: Path, status: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_file(what, folder).read_text())
    except (OSError, ValueError):
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no verdict"
        why = f"took more than {LIMIT_S} s or more memory than there is ({ended})"
        found = Verdict(what.library, what.name, not_built=why).as_dict()
    return found
