"""Helpers for tests of tables: small files of each kind, opened once for each simulated process."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import pack, unpack
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.layout import APART, HEAD_WORDS, HEADS_APART, KEYS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.tallies import TallyTable

INSTANCE = 0xED6E
CUSTOMERS = Layout("customers", rows=12, columns=4, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
QUOTAS = Layout("quotas", rows=12, columns=4, ring=1, cells=1, width=HEAD_WORDS)
SHARED = CUSTOMERS._replace(columns=5, width=HEAD_WORDS, parts=KEYS_APART)
"""The layout with a hub."""
HEADS_WITHIN = CUSTOMERS._replace(parts=KEYS_APART)
"""The layout of an earlier release, with all heads in the first part of a row."""
KEYS_WITHIN = CUSTOMERS._replace(parts=APART)
"""The layout before that, with whole keys in the first part of a row."""
TWO_PARTS = CUSTOMERS._replace(width=HEAD_WORDS, parts=2)
"""The layout before that, with the rings in regular use in the first part of a row."""
ONE_PART = TWO_PARTS._replace(parts=0)
"""The layout before that, with all rings in one part of a row."""
FORMER = ONE_PART._replace(width=0)
"""The layout before that, with only windows and without a head in the foreign column."""
USAGE = Layout("usage", rows=8, columns=4, width=1, parts=2)
WHOLE_KEYS = USAGE._replace(parts=0)
"""The layout of an earlier release, with whole keys in one part of a row."""
METRICS = Layout("metrics", rows=16, columns=4, width=24)


def make(folder: Path, layout: Layout, generation: int = 1) -> Path:
    """Create a file of this layout."""
    path = folder / f"{layout.kind}.{generation}.tbl"
    TableFile.create(path, layout, generation=generation, instance=INSTANCE, boot=1)
    return path


OPENED: list[TableFile] = []


def opened(path: Path) -> TableFile:
    """Open the file through a new descriptor, as another process does; `close_all` closes it."""
    file = TableFile.open(path, kind=path.name.split(".")[0], instance=INSTANCE)
    OPENED.append(file)
    return file


def close_all() -> None:
    """Close the files that a test, or an example of one, has opened."""
    while OPENED:
        OPENED.pop().close()


@contextmanager
def fresh(layout: Layout) -> Iterator[Path]:
    """Yield a new file for one example of a property test."""
    folder = Path(tempfile.mkdtemp(prefix="edgeproxy-table-"))
    try:
        yield make(folder, layout)
    finally:
        close_all()
        shutil.rmtree(folder)


def limits(path: Path, column: int | None = None) -> LimitTable:
    """Open the file as a table of limits."""
    return LimitTable(opened(path), column)


def tallies(path: Path, column: int | None = None) -> TallyTable:
    """Open the file as a table of totals."""
    return TallyTable(opened(path), column)


WIDTH = 2_142_858
"""Microseconds of a cell of a minute."""


def claim(table: LimitTable, key: bytes, now: float = 1000.0, flags: int = 0) -> int:
    """Return the row of `key`, claimed with these flags if need be."""
    flags |= HAS_PERIODS if table.name == QUOTAS.kind else 0
    row, _, _ = table.find(table.make_key(key), WIDTH, now, flags)
    return row


def taken(table: LimitTable) -> set[int]:
    """Return the numbers of the rows in the index."""
    return {number for _, _, number in table.index.entries()}


def number_of(table: LimitTable, row: int) -> int:
    """Return the number of the row at this offset."""
    return (row - table.layout.first_row) // table.layout.row_words


def write_cell(table: LimitTable, row: int, column: int, cell: int, count: int) -> None:
    """Write the count of a cell in a column, as its worker does once it has declared the column."""
    use_column(table, column)
    table.words[table.rings_of(row) + table.layout.ring_at(column) + cell % table.layout.ring] = pack(cell, count)


def write_head(table: LimitTable, row: int, column: int, head: tuple[int, ...]) -> None:
    """Write the first words of a column's head, as its worker does, or for the foreign column the supervisor."""
    if column == at.FOREIGN_COLUMN:
        table.write_foreign(row, {}, head)
        return
    use_column(table, column)
    for place, word in enumerate(head, row + table.layout.head(column)):
        table.words[place] = word


def use_column(table: LimitTable, column: int) -> None:
    """Declare a column as used."""
    words = table.words
    used, bit = at.USED_COLUMNS + column // 64, 1 << column % 64
    if not words[used] & bit:
        words[used] |= bit
        words[at.COLUMNS_VERSION] += 1


def list_foreign_counts(table: LimitTable, row: int) -> dict[int, int]:
    """Return the counts in a row's foreign ring, by cell."""
    first = table.foreign_of(row)
    return dict(unpack(word) for word in table.words[first : first + table.layout.ring].tolist() if word)


def list_ring_words(table: LimitTable, row: int) -> list[int]:
    """Return the words of all rings of a row, whether they are in use or not."""
    rings = table.rings_of(row)
    firsts = [table.foreign_of(row), *(rings + table.layout.ring_at(column) for column in range(table.layout.columns))]
    return [word for first in firsts for word in table.words[first : first + table.layout.ring].tolist()]


def count_as_formerly(table: LimitTable, key: bytes, column: int, cell: int, count: int) -> None:
    """Count in a column of an older file, whose heads have four words and whose foreign column has none."""
    row = claim(table, key)
    ring = table.layout.ring
    table.words[table.rings_of(row) + table.layout.ring_at(column) + cell % ring] = pack(cell, count)
    table.words[row + table.layout.heads + 4 * column] += count


class Killed(BaseException):
    """The exception that stands for the end of the process."""


class Cut:
    """Words of a table whose writer is killed at its nth store."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self._words = words
        self._stores = stores

    def __getitem__(self, place: int) -> int:
        return self._words[place]

    def __setitem__(self, place: int, value: int) -> None:
        self._stores -= 1
        if self._stores == 0:
            raise Killed
        self._words[place] = value
