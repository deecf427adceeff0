"""Every state a run can be in, every legal move, and who makes it. No Django: all worlds read this."""

from enum import StrEnum


class State(StrEnum):
    """Where a run is. The comment says who moves it on."""

    QUEUED = "queued"  # a worker's claim, or a user's cancel
    CLAIMED = "claimed"  # the supervisor that claimed it; the reconciler when its lease has expired
    RUNNING = "running"  # the same
    STOPPING = "stopping"  # the same; a cancel or a drain is in progress
    SUCCEEDED = "succeeded"  # nobody: final
    FAILED = "failed"  # a user's retry
    CANCELLED = "cancelled"  # a user's retry


class Actor(StrEnum):
    """Who may make a move."""

    WORKER = "worker"  # a worker process that holds nothing yet
    SUPERVISOR = "supervisor"  # holds the fence
    RECONCILER = "reconciler"  # acts on an expired lease
    USER = "user"  # writes `desired`, cancels queued runs, retries ended ones


class Desired(StrEnum):
    """What the user wants; written without a fence, obeyed by the holder of the lease."""

    RUN = "run"
    CANCEL = "cancel"


class Reason(StrEnum):
    """Why a run is in its state, in one word for programs; `detail` is for people."""

    NONE = ""
    CANCELLED = "cancelled"  # a user asked
    PREEMPTED = "preempted"  # the worker was told to stop
    CRASHED = "crashed"  # the trainer died
    LEASE_EXPIRED = "lease_expired"  # the worker sent no heartbeat
    POISONED = "poisoned"  # three crashes in a row with no new checkpoint
    ERROR = "error"  # the training code raised
    OUT_OF_MEMORY = "out_of_memory"
    NAN = "nan"  # a non-finite loss, gradient norm or weight where the spec says `on_nan: fail`
    SPEC = "spec"  # this worker cannot run this spec
    STORAGE = "storage"  # a file could not be stored
    LIMIT = "limit"  # the run used up the time or the memory that its spec allows
    STUCK = "stuck"  # the trainer ran but completed no step


HELD = (State.CLAIMED, State.RUNNING, State.STOPPING)
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

_S, _A = State, Actor
MOVES: frozenset[tuple[State, State, Actor]] = frozenset(
    [
        (_S.QUEUED, _S.CLAIMED, _A.WORKER),
        (_S.QUEUED, _S.CANCELLED, _A.USER),
        (_S.CLAIMED, _S.RUNNING, _A.SUPERVISOR),
        (_S.CLAIMED, _S.STOPPING, _A.SUPERVISOR),
        (_S.CLAIMED, _S.QUEUED, _A.SUPERVISOR),
        (_S.CLAIMED, _S.FAILED, _A.SUPERVISOR),
        (_S.RUNNING, _S.SUCCEEDED, _A.SUPERVISOR),
        (_S.RUNNING, _S.FAILED, _A.SUPERVISOR),
        (_S.RUNNING, _S.STOPPING, _A.SUPERVISOR),
        (_S.STOPPING, _S.CANCELLED, _A.SUPERVISOR),
        (_S.STOPPING, _S.QUEUED, _A.SUPERVISOR),
        (_S.STOPPING, _S.SUCCEEDED, _A.SUPERVISOR),
        (_S.STOPPING, _S.FAILED, _A.SUPERVISOR),
        *((held, to, _A.RECONCILER) for held in HELD for to in (_S.QUEUED, _S.FAILED, _S.CANCELLED)),
        (_S.FAILED, _S.QUEUED, _A.USER),
        (_S.CANCELLED, _S.QUEUED, _A.USER),
    ]
)


def sources(to: State, actor: Actor) -> tuple[State, ...]:
    """States from which `actor` may move a run to `to`, in the order of the enum."""
    return tuple(state for state in State if (state, to, actor) in MOVES)
