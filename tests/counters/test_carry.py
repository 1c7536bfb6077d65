from pathlib import Path
from time import perf_counter

import pytest

from edgeproxy.counters import layout as at
from edgeproxy.counters.carry import ROUND, Carry
from edgeproxy.counters.cells import cell_number, pack, unpack
from edgeproxy.counters.rows import LimitTable
from tests.counters.tables import PEOPLE, WIDTH, claim, limits, make, number_of

NOW = 5000.0
CELL = cell_number(NOW, WIDTH)
NEVER = float("inf")


@pytest.fixture
def old(tmp_path: Path) -> LimitTable:
    return limits(make(tmp_path, PEOPLE), 0)


@pytest.fixture
def new(tmp_path: Path) -> LimitTable:
    return limits(make(tmp_path, PEOPLE._replace(columns=8, rows=40), generation=2), 0)


def count(table: LimitTable, key: bytes, column: int, cell: int, count: int) -> None:
    """Count in a column, as a worker does."""
    row = claim(table, key)
    table.words[row + table.first_ring + 32 * column + cell % 32] = pack(cell, count)
    table.words[row + table.layout.heads + at.HEADS * column + at.CUM] += count


def foreign(table: LimitTable, key: bytes) -> dict[int, int]:
    row = table.peek(table.key(key))
    if row is None:
        return {}
    return dict(unpack(word) for word in table.words[row + at.FOREIGN : row + table.first_ring].tolist() if word)


def test_all_columns_of_a_row_are_one_foreign_count_in_the_new_table(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL, 3)
    count(old, b"acme", 1, CELL, 4)
    count(old, b"acme", 3, CELL - 28, 5)
    count(old, b"acme", 2, CELL - 29, 100)
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 7, CELL - 28: 5}


def test_what_is_carried_again_does_not_count_again(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL, 3)
    carry = Carry(old, new)
    carry.slice(NOW, NEVER)
    assert carry.slice(NOW, NEVER) == (0, True)
    count(old, b"acme", 0, CELL, 4)
    assert carry.slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 4}
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 4}


def test_a_row_is_carried_on_through_two_changes(old: LimitTable, new: LimitTable, tmp_path: Path) -> None:
    newest = limits(make(tmp_path, PEOPLE, generation=3), 0)
    first, second = Carry(old, new), Carry(new, newest)
    count(old, b"acme", 0, CELL, 3)
    first.slice(NOW, NEVER)
    count(new, b"acme", 5, CELL, 10)
    second.slice(NOW, NEVER)
    assert foreign(newest, b"acme") == {CELL: 13}
    count(old, b"acme", 0, CELL, 4)
    first.slice(NOW, NEVER)
    second.slice(NOW, NEVER)
    assert foreign(newest, b"acme") == {CELL: 14}


def test_rows_in_which_nothing_counts_any_more_are_left(old: LimitTable, new: LimitTable) -> None:
    claim(old, b"acme")
    count(old, b"globex", 0, CELL - 40, 3)
    old.free(number_of(old, claim(old, b"freed")))
    assert Carry(old, new).slice(NOW, NEVER) == (0, True)
    assert new.rows_in_use == 0


def test_what_finds_no_row_is_tried_again(old: LimitTable, new: LimitTable, tmp_path: Path) -> None:
    count(old, b"acme", 0, CELL, 3)
    carry = Carry(old, new)
    other = limits(new.file.path)
    assert other.file.lock()
    assert carry.slice(NOW, NEVER) == (0, True)
    other.file.unlock()
    assert carry.slice(NOW, NEVER) == (1, True)


def test_a_long_table_is_carried_by_the_piece(tmp_path: Path) -> None:
    layout = PEOPLE._replace(rows=2 * ROUND + 50)
    old, new = limits(make(tmp_path, layout), 0), limits(make(tmp_path, layout, generation=2), 0)
    for number in range(layout.rows):
        count(old, b"%d" % number, 0, CELL, number + 1)
    carry = Carry(old, new)
    assert [carry.slice(NOW, perf_counter()) for _ in range(3)] == [(ROUND, False), (ROUND, False), (50, True)]
    assert all(foreign(new, b"%d" % number) == {CELL: number + 1} for number in range(layout.rows))
