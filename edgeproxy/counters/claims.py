"""Claims of the hub in the heads of columns, and what becomes of those that nobody uses.

A process wants some (WANT), is given some by the supervisor (GIVEN), and spends them (USED). Spent are also those that
are given back. What a process leaves in its column is given back by whoever has the column next, or by a supervisor
that borrows it: of a rate that nobody uses any more it would be missing for as long as a window.
"""

from edgeproxy.counters import layout as at
from edgeproxy.counters.rows import LimitTable


def in_hand(table: LimitTable, row: int, column: int) -> int:
    """Claims of a column that are not spent."""
    head = row + table.layout.head(column)
    return table.words[head + at.GIVEN] - table.words[head + at.USED]


def is_settled(table: LimitTable, row: int, column: int) -> bool:
    """Whether a column has no claims, and wants none."""
    head = row + table.layout.head(column)
    want, used, given = table.words[head + at.WANT : head + at.GIVEN + 1].tolist()
    return used == given and want <= given


def give_back(table: LimitTable, row: int) -> None:
    """Give back the claims that this process has of a row, unless requests wait for some."""
    own = row + table.head_at
    given = table.words[own + at.GIVEN]
    if table.words[own + at.WANT] <= given:
        table.words[own + at.USED] = given


def settle(table: LimitTable, row: int, column: int) -> None:
    """Give back what is left of a row in a column of which nobody has claims, or waits for some; for its holder."""
    head = row + table.layout.head(column)
    table.words[head + at.WANT] = table.words[head + at.USED] = table.words[head + at.GIVEN]


def settle_all(table: LimitTable, column: int) -> None:
    """The same of all rows."""
    if table.layout.hub is None:
        return
    first, stride = table.row(0), table.layout.row_words
    head, end = first + table.layout.head(column), table.row(table.high)
    want, used, given = [table.words[head + word : end : stride].tolist() for word in (at.WANT, at.USED, at.GIVEN)]
    for number, words in enumerate(zip(want, used, given, strict=True)):
        if words != (words[2],) * 3:
            settle(table, first + number * stride, column)
