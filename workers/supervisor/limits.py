"""Time and size limits of a worker. Times in seconds."""

from __future__ import annotations

from attnservice.env import flag, text, whole

POLL_S = 1.0  # between reads of the run's row; a cancel is seen within this
TICK_S = 0.2  # longest sleep of the supervisor while nothing arrives
CANCEL_GRACE_S = 3.0  # for a cancelled trainer to save, before SIGKILL
TERM_GRACE_S = 2.0  # between SIGTERM and SIGKILL of a trainer that has sent its last message
LOG_EVERY_S = 1.0
LOG_CHUNK = 64 * 1024  # characters of log in one row
LOG_PENDING = 1024 * 1024  # characters of log held while they cannot be written; later lines are dropped
LOG_LINE = 8 * 1024

TRAINER = text("ATTN_TRAINER", "workers.trainer")  # the module that is run; it implements workers.protocol
SPARE = flag("ATTN_SPARE", True)  # keep a trainer with torch imported waiting in every slot
START_S = whole("ATTN_START_S", 300, least=1)  # from a trainer's start to its `Ready`
# Messages of one trainer that wait while the database is away: first in memory, then on disk; then the trainer waits.
INBOX_BYTES = whole("ATTN_INBOX_BYTES", 64 * 2**20, least=4096)
STUCK_S = whole("ATTN_STUCK_S", 900, least=1)  # with no step, before a trainer is stopped as stuck
SPOOL_MB = whole("ATTN_SPOOL_MB", 2048)
