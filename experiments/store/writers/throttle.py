"""Whose turn it is to write much on PostgreSQL: few do at once, so that readers find a processor (docs/decisions/0047).

A turn is a courtesy and guards nothing: who has waited for PATIENCE_S goes on without. It ends with the transaction. On
SQLite every write transaction has its turn already (attnservice/sqlite).
"""

from __future__ import annotations

import random
import time

from django.conf import settings
from django.db import connection

MUCH = 50_000  # points of a flush from which on it waits for a turn; a run that is watched live sends a tenth of it
PATIENCE_S = 2.0  # then somebody may be frozen with the turn
PAUSE_S = (0.002, 0.006)  # between looks: drawn anew, or two processes might keep in step
KEY = 0x5EA1  # of our advisory locks; the number of the turn stands beside it


def wait_for_turn() -> bool:
    """First in a transaction, before it holds any row: wait for a turn, but not for ever. Says whether it got one."""
    if connection.vendor != "postgresql":
        return True
    turns = range(settings.ATTN_WRITERS_AT_ONCE)
    tries = " OR ".join(["pg_try_advisory_xact_lock(%s, %s)"] * len(turns))
    deadline = time.monotonic() + PATIENCE_S
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT {tries}", [part for turn in turns for part in (KEY, turn)])
            if cursor.fetchone()[0]:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(*PAUSE_S))
