"""The only writer of a run's state: actions of users, of workers and of the reconciler."""

from .add_seeds import TooManyRuns, append_seeds
from .checkpoints import fall_back, publish_checkpoint
from .claims import Claim, Held
from .deletion import clear_files, clear_series, delete_run
from .expiry import expire
from .forks import fork
from .moves import LeaseLost, NotAllowed
from .sealing import keep_digest, seal, seal_finished
from .thinning import thin_group
from .user_actions import param_text, request_cancel, retry, submit
from .worker_actions import (
    add_artifact,
    add_log,
    cancelled,
    claim,
    commit,
    crash,
    fail,
    release,
    renew,
    start,
    stopping,
    succeed,
    usage,
    warn,
)
from .workers import beat_worker, drain_worker, idle_slots, register_worker, retire_worker

__all__ = [
    "Claim", "Held", "LeaseLost", "NotAllowed", "TooManyRuns", "add_artifact", "add_log", "append_seeds", "beat_worker",
    "cancelled", "claim", "clear_files", "clear_series", "commit", "crash", "delete_run", "drain_worker", "expire",
    "fail", "fall_back", "fork", "idle_slots", "keep_digest", "param_text", "publish_checkpoint", "register_worker",
    "release", "renew", "request_cancel", "retire_worker", "retry", "seal", "seal_finished", "start", "stopping",
    "submit", "succeed", "thin_group", "usage", "warn",
]  # fmt: skip
