"""SQLite connections that read text with invalid UTF-8. A damaged value must not break statements that read its row.

The driver raises an error for such a value and drops the rows after it. This module executes the statement again and
replaces undecodable bytes with U+FFFD. The driver's own decoder is several times as fast, so it is tried first.
PostgreSQL refuses to store such text.
"""

import re
import sqlite3
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from edgeproxy.base.log import RateLimitedLog

UNDECODABLE = re.compile(r"Could not decode to UTF-8 column '(\w*)'")
"""The beginning of the driver's error. The value follows and must not be logged."""
READS = ("SELECT", "WITH")
"""First words of statements that may be executed twice."""
_limited_log = RateLimitedLog(600.0)
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class LenientCursor(sqlite3.Cursor):
    """A cursor that reads any text."""

    _statement = ""
    _parameters: tuple[object, ...] = ()
    _delivered = 0
    """Rows of the statement that were fetched."""
    _is_lenient = False

    def execute(self, statement: str, *parameters: object) -> "LenientCursor":
        """Execute a statement, with its parameters in one argument if it has any."""
        self._statement, self._parameters = statement, parameters
        self._delivered, self._is_lenient = 0, False
        try:
            return super().execute(statement, *parameters)  # type: ignore[arg-type]
        except sqlite3.OperationalError as error:
            self._restart(error)
        return self

    def fetchone(self) -> object:
        """Return the next row, or None."""
        row = self._fetch(super().fetchone)
        self._delivered += row is not None
        return row

    def fetchmany(self, size: int | None = None) -> list[object]:
        """Return the next rows."""
        rows: list[object] = self._fetch(super().fetchmany, self.arraysize if size is None else size)
        self._delivered += len(rows)
        return rows

    def fetchall(self) -> list[object]:
        """Return the remaining rows."""
        rows: list[object] = self._fetch(super().fetchall)
        self._delivered += len(rows)
        return rows

    def _fetch(
        self, fetch: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        if not self._is_lenient:
            try:
                return fetch(*arguments, **named)
            except sqlite3.OperationalError as error:
                self._restart(error)
        return self._decode(fetch, *arguments, **named)

    def _restart(self, error: sqlite3.OperationalError) -> None:
        """Execute a statement that only reads again, up to the undecodable row. Raise `error` for other statements."""
        column = UNDECODABLE.match(str(error))
        if column is None or not self._statement.lstrip().upper().startswith(READS):
            raise error
        _limited_log.error("text in the database is no UTF-8, and is read without what cannot be decoded", column[1])
        self._is_lenient = True
        self._decode(super().execute, self._statement, *self._parameters)  # type: ignore[arg-type]
        if self._delivered:
            self._decode(super().fetchmany, self._delivered)

    def _decode(self, do: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        self.connection.text_factory = _decode
        try:
            return do(*arguments, **named)
        finally:
            self.connection.text_factory = str


class LenientConnection(sqlite3.Connection):
    """A connection with lenient cursors."""

    def cursor(self, *_: object) -> LenientCursor:  # type: ignore[override]  # No other kind is used.
        """Return a cursor."""
        return super().cursor(LenientCursor)


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")
