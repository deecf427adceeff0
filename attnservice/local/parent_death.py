"""Child processes that cannot outlive us."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def _leash() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: nothing is loaded between fork and exec
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# For Popen's preexec_fn. The kernel sends the signal when the *thread* that started the child ends, so
# start children from a main thread.
die_with_parent = _leash()
