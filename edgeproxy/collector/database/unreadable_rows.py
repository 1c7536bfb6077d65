"""Rows that cannot be read are set aside: the work goes on with the others, and operators are alerted of each once.

A row is unreadable if a value of it was damaged or changed by somebody else: JSON that is none, a ciphertext that does
not open, a value of another type. Whoever reads many rows reads them by `parse_rows`, or calls `set_aside` for one and
goes on. The row stays where it is, as it may be repaired. `jobs/operator_alerts.py` raises the alerts, with the table
and the key of the row and nothing of its content.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from edgeproxy.base import log

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")

REMEMBERED_MAX = 10_000
"""Rows that are remembered, so that each is told of once."""


class UnreadableRowError(Exception):
    """A row cannot be read: a sentence without anything of its content."""


UNREADABLE = (UnreadableRowError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of a function that parses a row, and does nothing else."""


class UnreadableRow(NamedTuple):
    """A row that was set aside."""

    table: str
    key: str
    """Values of its primary key."""
    why: str
    """The name of the error: its text may quote the row."""


_remembered: dict[tuple[str, str], None] = {}
_untold: list[UnreadableRow] = []


def set_aside(table: str, key: str, error: Exception) -> None:
    """Have operators told that a row cannot be read. The caller goes on without it."""
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
    """Return what `parse` makes of each row of a table; those that it cannot read are set aside."""
    parsed = []
    for row in rows:
        try:
            parsed.append(parse(row))
        except UNREADABLE as error:
            set_aside(table, str(get_key(row)), error)
    return parsed
