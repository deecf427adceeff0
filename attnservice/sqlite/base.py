"""The database backend: every write transaction, and every write outside of one, waits for its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.sqlite3 import base

from .write_throttle import give, take

PATIENCE_S = 10.0  # then one asks SQLite without a turn: somebody may be frozen with it
WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with turns."""

    _turn: int | None = None

    def create_cursor(self, name: Any = None) -> Any:
        cursor = self.connection.cursor(factory=Cursor)
        cursor.wrapper = self
        return cursor

    @contextmanager
    def turn(self, sql: str) -> Iterator[None]:
        """Around a statement that writes outside of a transaction; nothing around others."""
        if self.connection.in_transaction or not sql.lstrip().upper().startswith(WRITES):
            yield
            return
        turn = self._wait()
        try:
            yield
        finally:
            give(turn)

    def _wait(self) -> int | None:
        name = str(self.settings_dict["NAME"])
        return None if self.is_in_memory_db() else take(name, PATIENCE_S)

    def _start_transaction_under_autocommit(self) -> None:
        self._give()
        self._turn = self._wait()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._give()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._give()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._give()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._give()

    def _give(self) -> None:
        turn, self._turn = self._turn, None
        give(turn)


class Cursor(base.SQLiteCursorWrapper):
    """Waits for a turn where a statement is a write of its own."""

    wrapper: DatabaseWrapper

    def execute(self, query: str, params: Any = None) -> Any:
        with self.wrapper.turn(query):
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        with self.wrapper.turn(query):
            return super().executemany(query, param_list)
