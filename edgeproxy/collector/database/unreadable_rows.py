"""Unreadable rows are set aside: the caller continues with the other rows, and operators get one alert for each.

A row is unreadable if one of its values was damaged, or changed by another program. Examples are invalid JSON, a
ciphertext that cannot be decrypted, and a value of another type. A function that reads many rows calls `parse_rows`,
or calls `set_aside` for a single row and continues. The row stays in its table, because it may be repaired.
`jobs/operator_alerts.py` raises the alerts. An alert has the table and the key of the row, but none of its content.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from edgeproxy.base import log

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")

REMEMBERED_MAX = 10_000
"""Rows that are remembered, so that each is reported once. Further rows are not reported."""


class UnreadableRowError(Exception):
    """A row cannot be read. The message is a sentence without any of the row's content."""


UNREADABLE = (UnreadableRowError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of a function that only parses a row."""


class UnreadableRow(NamedTuple):
    """A row that was set aside."""

    table: str
    key: str
    """The values of its primary key."""
    why: str
    """The name of the error's class. The error's text is left out because it may quote the row."""


_remembered: dict[tuple[str, str], None] = {}
_untold: list[UnreadableRow] = []


def set_aside(table: str, key: str, error: Exception) -> None:
    """Log an unreadable row, and store it for an alert to operators. The caller continues without the row."""
    if (table, key) in _remembered or len(_remembered) >= REMEMBERED_MAX:
        return
    _remembered[table, key] = None
    row = UnreadableRow(table, key, type(error).__name__)
    _untold.append(row)
    log.get_logger().error("a row cannot be read, and is set aside", table=table, key=key, why=row.why)


def take_untold() -> list[UnreadableRow]:
    """Return the rows that were set aside since the last call."""
    rows = _untold.copy()
    _untold.clear()
    return rows


def parse_rows(
    table: str, rows: Iterable[Row], parse: Callable[[Row], Parsed], get_key: Callable[[Row], object]
) -> list[Parsed]:
    """Return the result of `parse` for each row of a table. Rows that `parse` cannot read are set aside."""
    parsed = []
    for row in rows:
        try:
            parsed.append(parse(row))
        except UNREADABLE as error:
            set_aside(table, str(get_key(row)), error)
    return parsed
