"""The database backend: every write transaction, and every write outside of one, waits for the write throttle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.sqlite3 import base

from .write_throttle import acquire, release

PATIENCE_S = 10.0  # then go on without a slot: its holder may be frozen
WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with the write throttle."""

    _slot: int | None = None

    def create_cursor(self, name: Any = None) -> Any:
        cursor = self.connection.cursor(factory=Cursor)
        cursor.wrapper = self
        return cursor

    @contextmanager
    def throttled(self, sql: str) -> Iterator[None]:
        """Around a statement: throttles one that writes outside of a transaction."""
        if self.connection.in_transaction or not sql.lstrip().upper().startswith(WRITES):
            yield
            return
        slot = self._acquire()
        try:
            yield
        finally:
            release(slot)

    def _acquire(self) -> int | None:
        name = str(self.settings_dict["NAME"])
        return None if self.is_in_memory_db() else acquire(name, PATIENCE_S)

    def _start_transaction_under_autocommit(self) -> None:
        self._release()
        self._slot = self._acquire()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._release()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._release()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._release()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._release()

    def _release(self) -> None:
        slot, self._slot = self._slot, None
        release(slot)


class Cursor(base.SQLiteCursorWrapper):
    """Throttles a statement that writes outside of a transaction."""

    wrapper: DatabaseWrapper

    def execute(self, query: str, params: Any = None) -> Any:
        with self.wrapper.throttled(query):
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        with self.wrapper.throttled(query):
            return super().executemany(query, param_list)
