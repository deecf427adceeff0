"""The parent-death signal: child processes that cannot outlive their parent."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def _parent_death_signal() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork, not between fork and exec
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# For Popen's preexec_fn. The kernel sends the signal when the *thread* that started the child ends, so
# start children from a main thread.
die_with_parent = _parent_death_signal()
