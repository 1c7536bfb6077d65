"""Claims of the hub in the heads of columns, and the return of unused ones.

A claim is permission to count one. A process requests some (WANT), is given some by the supervisor (GIVEN), and spends
them (USED); returned claims count as spent. Claims that a process leaves in its column are returned by the next holder
of the column, or by a supervisor that borrows it. Otherwise a rate that is no longer used would miss them for a whole
window. `row` is the first word of a row.
"""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable


def in_hand(table: LimitTable, row: int, column: int) -> int:
    """Return the claims of a column that are not spent."""
    head = row + table.layout.head(column)
    return table.words[head + at.GIVEN] - table.words[head + at.USED]


def is_settled(table: LimitTable, row: int, column: int) -> bool:
    """Return whether a column has no claims and requests none."""
    head = row + table.layout.head(column)
    requested, used, given = table.words[head + at.WANT : head + at.GIVEN + 1].tolist()
    return used == given and requested <= given


def request_claims(table: LimitTable, row: int, waiting: int) -> None:
    """Request this many claims more than were given, in all, for this process."""
    own = row + table.head_at
    table.words[own + at.WANT] = table.words[own + at.GIVEN] + waiting


def grant_claims(table: LimitTable, row: int, granted: int) -> None:
    """Give claims to the columns that request them, and the rest to one of them. For the supervisor."""
    words, layout = table.words, table.layout
    heads = [row + layout.head(column) for column in range(layout.columns - (layout.hub is not None))]
    requesting = [head for head in heads if words[head + at.WANT] > words[head + at.GIVEN]]
    for head in requesting:
        some = min(granted, words[head + at.WANT] - words[head + at.GIVEN])
        words[head + at.GIVEN] += some
        granted -= some
    if granted:
        # No request waits any more, or more will come before the next answer does. Unused claims are given back.
        head = requesting[0] if requesting else max(heads, key=lambda head: words[head + at.CUM])
        words[head + at.GIVEN] += granted


def return_claims(table: LimitTable, row: int) -> None:
    """Return this process's claims of a row, unless requests wait for some."""
    own = row + table.head_at
    given = table.words[own + at.GIVEN]
    if table.words[own + at.WANT] <= given:
        table.words[own + at.USED] = given


def clear_claims(table: LimitTable, row: int, column: int) -> None:
    """Return the claims of a row in a column that no process uses. For the holder of the column."""
    head = row + table.layout.head(column)
    table.words[head + at.WANT] = table.words[head + at.USED] = table.words[head + at.GIVEN]


def clear_column(table: LimitTable, column: int) -> None:
    """Return the claims of every row of the table in a column."""
    if table.layout.hub is None:
        return
    first, stride = table.row(0), table.layout.row_words
    head, end = first + table.layout.head(column), table.row(table.high)
    requested, used, given = [table.words[head + word : end : stride].tolist() for word in (at.WANT, at.USED, at.GIVEN)]
    for number, words in enumerate(zip(requested, used, given, strict=True)):
        if words != (words[2],) * 3:
            clear_claims(table, first + number * stride, column)
