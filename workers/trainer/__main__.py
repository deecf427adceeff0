"""`python -m workers.trainer` waits for orders; `python -m workers.trainer run spec.yaml --out DIR` trains without the
service; `python -m workers.trainer answer` is the child of an inspection worker."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

# Before torch loads: waiting OpenMP threads must sleep. Two trainers whose threads spin on the same cores were
# measured ten times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def die_with_parent() -> None:
    """Set the parent-death signal: the kernel kills this process when its parent dies. It may be gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["ATTN_PARENT_PID"]):
        sys.exit("the supervisor is gone")


def main() -> int:
    if sys.argv[1:2] == ["run"]:
        from workers.trainer.entry.standalone import main as run

        return run(sys.argv[2:])
    if len(sys.argv) > 1 and sys.argv[1:] != ["answer"]:
        sys.exit(__doc__)
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the supervisor decides
    if len(sys.argv) > 1:
        from workers.trainer.entry.inspection_server import serve as answer

        return answer()
    from workers.trainer.entry.spare import serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
