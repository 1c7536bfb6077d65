"""Claims of the hub in the heads of columns, and what becomes of those that nobody uses.

A claim is leave to count one. A process wants some (WANT), is given some by the supervisor (GIVEN), and spends them
(USED); claims that are given back count as spent. What a process leaves in its column is given back by whoever has the
column next, or by a supervisor that borrows it: of a rate that nobody uses any more it would be missing for as long as
a window. `row` is the word at which a row begins.
"""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable


def in_hand(table: LimitTable, row: int, column: int) -> int:
    """Claims of a column that are not spent."""
    head = row + table.layout.head(column)
    return table.words[head + at.GIVEN] - table.words[head + at.USED]


def is_settled(table: LimitTable, row: int, column: int) -> bool:
    """Whether a column has no claims, and wants none."""
    head = row + table.layout.head(column)
    requested, used, given = table.words[head + at.WANT : head + at.GIVEN + 1].tolist()
    return used == given and requested <= given


def request_claims(table: LimitTable, row: int, waiting: int) -> None:
    """So many claims more than were given are wanted, in all, by this process."""
    own = row + table.head_at
    table.words[own + at.WANT] = table.words[own + at.GIVEN] + waiting


def grant_claims(table: LimitTable, row: int, granted: int) -> None:
    """Give claims to the columns that want them, and what is left over to one of them. For the supervisor."""
    words, layout = table.words, table.layout
    heads = [row + layout.head(column) for column in range(layout.columns - (layout.hub is not None))]
    requesting = [head for head in heads if words[head + at.WANT] > words[head + at.GIVEN]]
    for head in requesting:
        some = min(granted, words[head + at.WANT] - words[head + at.GIVEN])
        words[head + at.GIVEN] += some
        granted -= some
    if granted:
        # Nobody waits any more, or more will come before the next answer does. Unused ones are given back.
        head = requesting[0] if requesting else max(heads, key=lambda head: words[head + at.CUM])
        words[head + at.GIVEN] += granted


def return_claims(table: LimitTable, row: int) -> None:
    """Give back the claims that this process has of a row, unless requests wait for some."""
    own = row + table.head_at
    given = table.words[own + at.GIVEN]
    if table.words[own + at.WANT] <= given:
        table.words[own + at.USED] = given


def clear_claims(table: LimitTable, row: int, column: int) -> None:
    """Give back what is left of a row in a column of which nobody has claims, or waits for some; for its holder."""
    head = row + table.layout.head(column)
    table.words[head + at.WANT] = table.words[head + at.USED] = table.words[head + at.GIVEN]


def clear_column(table: LimitTable, column: int) -> None:
    """Settle every row of the table in a column."""
    if table.layout.hub is None:
        return
    first, stride = table.row(0), table.layout.row_words
    head, end = first + table.layout.head(column), table.row(table.high)
    requested, used, given = [table.words[head + word : end : stride].tolist() for word in (at.WANT, at.USED, at.GIVEN)]
    for number, words in enumerate(zip(requested, used, given, strict=True)):
        if words != (words[2],) * 3:
            clear_claims(table, first + number * stride, column)
