"""Connections to SQLite that read text which is no UTF-8: a damaged value must not end the statements that pass by it.

The driver raises an error for such a value, and loses the rows after it. Here the statement is executed again with
U+FFFD in the place of what cannot be decoded. The driver's own decoder is several times as fast, so it comes first.
PostgreSQL refuses to store such text.
"""

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from edgeproxy.base.log import RateLimitedLog

UNDECODABLE = re.compile(r"Could not decode to UTF-8 column '(\w*)'")
"""The beginning of the driver's error; the value follows, and is not for logs."""
READS = ("SELECT", "WITH")
"""How statements begin that may be executed twice."""
_limited_log = RateLimitedLog(600.0)


class LenientCursor(sqlite3.Cursor):
    """A cursor that reads any text."""

    _statement: tuple[Any, ...] = ()
    _delivered = 0
    """Rows that were fetched of the statement."""
    _is_lenient = False

    def execute(self, *statement: Any) -> "LenientCursor":
        """Execute a statement."""
        self._statement, self._delivered, self._is_lenient = statement, 0, False
        try:
            return super().execute(*statement)
        except sqlite3.OperationalError as error:
            self._restart(error)
        return self

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        row = self._fetch(super().fetchone)
        self._delivered += row is not None
        return row

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        rows: list[Any] = self._fetch(super().fetchmany, self.arraysize if size is None else size)
        self._delivered += len(rows)
        return rows

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows: list[Any] = self._fetch(super().fetchall)
        self._delivered += len(rows)
        return rows

    def _fetch(self, fetch: Callable[..., Any], *size: int) -> Any:
        if not self._is_lenient:
            try:
                return fetch(*size)
            except sqlite3.OperationalError as error:
                self._restart(error)
        return self._decode(fetch, *size)

    def _restart(self, error: sqlite3.OperationalError) -> None:
        """Execute a statement that only reads once more, up to the row that could not be decoded; else raise."""
        column = UNDECODABLE.match(str(error))
        if column is None or not str(self._statement[0]).lstrip().upper().startswith(READS):
            raise error
        _limited_log.error("text in the database is no UTF-8, and is read without what cannot be decoded", column[1])
        self._is_lenient = True
        self._decode(super().execute, *self._statement)
        if self._delivered:
            self._decode(super().fetchmany, self._delivered)

    def _decode(self, do: Callable[..., Any], *arguments: Any) -> Any:
        self.connection.text_factory = _decode
        try:
            return do(*arguments)
        finally:
            self.connection.text_factory = str


class LenientConnection(sqlite3.Connection):
    """A connection with such cursors."""

    def cursor(self, *_: Any) -> LenientCursor:  # type: ignore[override]  # No other kind is asked for.
        """Return a cursor."""
        return super().cursor(LenientCursor)


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")
