"""The write throttle on PostgreSQL: few large writes at once, so that readers find a processor (docs/decisions/0047).

It protects no data: a write that has waited for PATIENCE_S goes on without a slot. A slot is held until the transaction
ends. On SQLite every write transaction is throttled already (attnservice/sqlite).
"""

from __future__ import annotations

import random
import time

from django.conf import settings
from django.db import connection

LARGE_WRITE = 50_000  # points of a flush from which on it is throttled; a run that is watched live sends a tenth of it
PATIENCE_S = 2.0  # then the holder of the slot may be frozen
PAUSE_S = (0.002, 0.006)  # between tries: random, or two processes might keep in step
KEY = 0x5EA1  # of our advisory locks; the number of the slot stands beside it


def throttle_write() -> bool:
    """Call first in a transaction, before it locks any row. Waits for a slot; False if it goes on without one."""
    if connection.vendor != "postgresql":
        return True
    slots = range(settings.ATTN_WRITERS_AT_ONCE)
    tries = " OR ".join(["pg_try_advisory_xact_lock(%s, %s)"] * len(slots))
    deadline = time.monotonic() + PATIENCE_S
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT {tries}", [part for slot in slots for part in (KEY, slot)])
            if cursor.fetchone()[0]:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(*PAUSE_S))
