from pathlib import Path
from time import perf_counter

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.carry import ROWS_PER_CLOCK_READ, Carry
from edgeproxy.edge.counters.cells import cell_number, pack
from edgeproxy.edge.counters.columns import acquire_column
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.row_key import HAS_FOREIGN, HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from tests.edge.counters.gauges import Process, use
from tests.support.tables import (
    CUSTOMERS,
    FORMER,
    HEADS_WITHIN,
    KEYS_WITHIN,
    ONE_PART,
    QUOTAS,
    TWO_PARTS,
    WIDTH,
    Cut,
    Killed,
    claim,
    count_as_formerly,
    limits,
    list_foreign_counts,
    make,
    number_of,
    opened,
    write_cell,
    write_head,
)

BOTH_ORDERS = True

NOW = 5000.0
CELL = cell_number(NOW, WIDTH)
NEVER = float("inf")


@pytest.fixture
def old(tmp_path: Path) -> LimitTable:
    return limits(make(tmp_path, CUSTOMERS), 0)


@pytest.fixture
def new(tmp_path: Path) -> LimitTable:
    return limits(make(tmp_path, CUSTOMERS._replace(columns=8, rows=40), generation=2), 0)


def count(table: LimitTable, key: bytes, column: int, cell: int, count: int) -> None:
    """Count in a column as a worker does."""
    row = claim(table, key)
    write_cell(table, row, column, cell, count)
    table.words[row + table.layout.head(column) + at.CUM] += count


def foreign(table: LimitTable, key: bytes) -> dict[int, int]:
    row = table.peek(table.make_key(key))
    return {} if row is None else list_foreign_counts(table, row)


def test_the_columns_of_a_row_become_one_foreign_count(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL, 3)
    count(old, b"acme", 1, CELL, 4)
    count(old, b"acme", 3, CELL - 28, 5)
    count(old, b"acme", 2, CELL - 29, 100)
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 7, CELL - 28: 5}


def test_rows_without_current_counts_are_not_carried(old: LimitTable, new: LimitTable) -> None:
    claim(old, b"acme")
    count(old, b"globex", 0, CELL - 40, 3)
    old.free(number_of(old, claim(old, b"freed")))
    assert Carry(old, new).slice(NOW, NEVER) == (0, True)
    assert new.rows_in_use == 0


def test_a_round_does_not_end_while_the_new_table_is_locked(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL, 3)
    carry = Carry(old, new)
    other = limits(new.file.path)
    assert other.file.lock()
    assert carry.slice(NOW, NEVER) == (0, False)
    assert carry.slice(NOW, NEVER) == (0, False)
    other.file.unlock()
    assert carry.slice(NOW, NEVER) == (1, True)
    assert carry.slice(NOW, NEVER) == (0, True)


def test_a_key_without_a_free_row_is_tried_in_every_round(old: LimitTable, tmp_path: Path) -> None:
    new = limits(make(tmp_path, CUSTOMERS._replace(rows=1), generation=2), 0)
    claim(new, b"globex")
    count(old, b"acme", 0, CELL, 3)
    carry = Carry(old, new)
    assert carry.slice(NOW, NEVER) == carry.slice(NOW, NEVER) == (0, True)
    new.free(0)
    assert carry.slice(NOW, NEVER) == (1, True)


def test_a_large_table_is_carried_in_slices(tmp_path: Path) -> None:
    # The table has spare rows, because in a full table a key may find no place in the index.
    layout, rows = CUSTOMERS._replace(rows=4 * ROWS_PER_CLOCK_READ), 2 * ROWS_PER_CLOCK_READ + 50
    old, new = limits(make(tmp_path, layout), 0), limits(make(tmp_path, layout, generation=2), 0)
    for number in range(rows):
        count(old, b"%d" % number, 0, CELL, number + 1)
    carry = Carry(old, new)
    assert [carry.slice(NOW, perf_counter()) for _ in range(3)] == [
        (ROWS_PER_CLOCK_READ, False),
        (ROWS_PER_CLOCK_READ, False),
        (50, True),
    ]
    assert all(foreign(new, b"%d" % number) == {CELL: number + 1} for number in range(rows))


# ---- heads


def set_head(table: LimitTable, key: bytes, column: int, head: tuple[int, ...]) -> int:
    """Store the first words of a column's head. Return the place of the row."""
    row = claim(table, key)
    write_head(table, row, column, head)
    return row


def foreign_head(table: LimitTable, key: bytes) -> list[int] | None:
    row = table.peek(table.make_key(key))
    if row is None:
        return None
    first = row + table.layout.head(-1)
    return table.words[first : first + at.LONE_HEAD_WORDS].tolist()


UNTIL = int(NOW * 1000) + 50_000


def test_a_bucket_is_carried_with_its_latest_level(old: LimitTable, new: LimitTable) -> None:
    set_head(old, b"acme", 0, (10, 111, 17, UNTIL - 1))
    set_head(old, b"acme", 3, (12, 333, 22, UNTIL - 2))
    set_head(old, b"acme", -1, (2, 999, 2, UNTIL))
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign_head(new, b"acme") == [24, 333, 22, UNTIL]


@pytest.mark.parametrize(
    ("heads", "carried"),
    [
        ({-1: (7, 999, 6, UNTIL)}, [7, 999, 6, UNTIL]),
        # One worker counts and another stores a level with that count while the heads are being read.
        ({0: (10, 0, 0, UNTIL), 1: (5, 111, 17, 0)}, [15, 111, 15, UNTIL]),
    ],
    ids=["of an older table", "covers at most the total"],
)
def test_a_level_is_carried_on(
    old: LimitTable, new: LimitTable, heads: dict[int, tuple[int, ...]], carried: list[int]
) -> None:
    for column, words in heads.items():
        set_head(old, b"acme", column, words)
    Carry(old, new).slice(NOW, NEVER)
    assert foreign_head(new, b"acme") == carried


def test_an_undrained_bucket_is_carried_after_its_window(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL - 100, 3)
    set_head(old, b"acme", 0, (3, 111, 3, UNTIL))
    count(old, b"globex", 0, CELL - 100, 3)
    set_head(old, b"globex", 0, (3, 111, 3, int(NOW * 1000)))
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {}
    assert foreign_head(new, b"acme") == [3, 111, 3, UNTIL]
    assert foreign_head(new, b"globex") is None


def test_a_changed_head_is_carried_again(old: LimitTable, new: LimitTable) -> None:
    set_head(old, b"acme", 0, (10, 111, 10, UNTIL))
    carry = Carry(old, new)
    assert carry.slice(NOW, NEVER)[0] == 1
    # One more is counted, but the sum of the words is unchanged.
    set_head(old, b"acme", 0, (11, 109, 11, UNTIL))
    assert carry.slice(NOW, NEVER)[0] == 1
    assert foreign_head(new, b"acme") == [11, 109, 11, UNTIL]
    assert carry.slice(NOW, NEVER)[0] == 0


def test_a_carry_changes_the_sync_version_of_the_row(old: LimitTable, new: LimitTable) -> None:
    row = claim(new, b"acme")
    sync = new.words[row + at.ROW_SYNC]
    set_head(old, b"acme", 0, (10, 111, 10, UNTIL))
    Carry(old, new).slice(NOW, NEVER)
    assert new.words[row + at.ROW_SYNC] == sync + 1
    assert new.words[row + at.ROW_STATE] == len(b"acme") | HAS_FOREIGN


CARRY_STORES = 7
"""Stores into an existing row per carry: a cell, four words of a head, the state, the sync version."""


@pytest.mark.parametrize("stores", range(1, CARRY_STORES + 1))
def test_a_carry_interrupted_by_a_kill_is_completed_by_the_next_supervisor(
    old: LimitTable, new: LimitTable, stores: int
) -> None:
    count(old, b"acme", 0, CELL, 3)
    set_head(old, b"acme", 0, (3, 111, 3, UNTIL))
    row = claim(new, b"acme")
    dying = limits(new.file.path)
    dying.words = Cut(dying.words, stores)  # type: ignore[assignment]
    with pytest.raises(Killed):
        Carry(old, dying).slice(NOW, NEVER)
    told = new.words[row + at.ROW_SYNC]
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 3}
    assert foreign_head(new, b"acme") == [3, 111, 3, UNTIL]
    # Readers may have read the partial counts, so a new sync version makes them read again.
    assert new.words[row + at.ROW_SYNC] == told + 1


# ---- files of the former format


def test_counts_in_the_former_format_are_carried(tmp_path: Path, new: LimitTable) -> None:
    old = limits(make(tmp_path, FORMER))
    count_as_formerly(old, b"acme", 0, CELL, 3)
    count_as_formerly(old, b"acme", 3, CELL, 4)
    row = claim(old, b"globex")
    old.words[old.foreign_of(row) + (CELL - 1) % 32] = pack(CELL - 1, 5)
    carry = Carry(old, new)
    assert carry.slice(NOW, NEVER) == (2, True)
    assert foreign(new, b"acme") == {CELL: 7}
    assert foreign(new, b"globex") == {CELL - 1: 5}
    # The former format has no levels and no retention times.
    assert foreign_head(new, b"acme") == [0] * at.LONE_HEAD_WORDS
    assert carry.slice(NOW, NEVER) == (0, True)
    count_as_formerly(old, b"acme", 3, CELL, 6)
    assert carry.slice(NOW, NEVER) == (1, True)
    assert foreign(new, b"acme") == {CELL: 9}


@pytest.mark.parametrize("layout", [ONE_PART, TWO_PARTS, KEYS_WITHIN, HEADS_WITHIN])
@pytest.mark.parametrize("key", [b"acme", b"a name that is longer than its place in a row"])
def test_counts_in_rows_of_former_parts_are_carried(
    tmp_path: Path, new: LimitTable, layout: Layout, key: bytes
) -> None:
    old = limits(make(tmp_path, layout))
    count(old, key, 0, CELL, 3)
    count(old, key, 3, CELL, 4)
    old.write_foreign(claim(old, key), {CELL - 1: 5})
    assert Carry(old, new).slice(NOW, NEVER) == (1, True)
    assert foreign(new, key) == {CELL: 7, CELL - 1: 5}


# ---- slots in use


def in_use(table: LimitTable, key: bytes = b"acme") -> int | None:
    row = table.peek(table.make_key(key))
    return None if row is None else table.in_use(row)


def worker(path: Path) -> LimitTable:
    """Return the table as a worker with a column of its own has it."""
    file = opened(path)
    return LimitTable(file, acquire_column([file]))


def test_slots_in_use_are_carried_until_they_are_released(tmp_path: Path, new: LimitTable) -> None:
    path = make(tmp_path, CUSTOMERS)
    one, other = worker(path), worker(path)
    use(one, b"acme", 2)
    use(other, b"acme", 3)
    carry = Carry(limits(path), new)
    assert carry.slice(NOW, NEVER) == (1, True)
    assert in_use(new) == 5
    row = claim(new, b"acme")
    assert new.words[row + at.ROW_STATE] & HAS_GAUGES
    assert carry.slice(NOW, NEVER) == (0, True)
    use(one, b"acme", 0)
    assert carry.slice(NOW, NEVER) == (1, True)
    assert in_use(new) == 3
    use(other, b"acme", 0)
    assert carry.slice(NOW, NEVER) == (1, True)
    assert in_use(new) == 0


def test_released_slots_are_carried_by_a_second_supervisor(tmp_path: Path, new: LimitTable) -> None:
    path = make(tmp_path, CUSTOMERS)
    busy = worker(path)
    use(busy, b"acme", 2)
    Carry(limits(path), new).slice(NOW, NEVER)
    use(busy, b"acme", 0)
    # The second supervisor has carried nothing itself, and the counts of the first are out of date.
    assert Carry(limits(path), new).slice(NOW, NEVER) == (1, True)
    assert in_use(new) == 0


def test_a_row_without_slots_in_use_is_not_carried(tmp_path: Path, new: LimitTable) -> None:
    path = make(tmp_path, CUSTOMERS)
    use(worker(path), b"acme", 0)
    assert Carry(limits(path), new).slice(NOW, NEVER) == (0, True)
    assert new.rows_in_use == 0


def test_slots_of_a_killed_process_are_free_in_the_new_table(tmp_path: Path, new: LimitTable) -> None:
    path = make(tmp_path, CUSTOMERS)
    old = limits(path)
    carry = Carry(old, new)
    with Process(path) as dying:
        dying.use(b"acme", 3)
        assert carry.slice(NOW, NEVER) == (1, True)
        assert in_use(new) == 3
        dying.kill()
        # The old table still has the killed process's slots.
        assert old.words[claim(old, b"acme") + CUSTOMERS.head(dying.column) + at.GAUGE] & 0xFFFF == 3
        assert carry.slice(NOW, NEVER) == (1, True)
    assert in_use(new) == 0


# ---- quotas

TODAY = 5e7
MAY, JUNE = 24_305, 24_306
END = int(TODAY * 1000) + 1_000_000
"""The end of the period, in milliseconds of edge time."""


@pytest.fixture
def quotas(tmp_path: Path) -> tuple[LimitTable, LimitTable]:
    """A table of quotas and its successor."""
    old, new = make(tmp_path, QUOTAS), make(tmp_path, QUOTAS._replace(columns=8), generation=2)
    return limits(old, 0), limits(new, 0)


def test_a_quota_is_carried_as_the_sum_of_its_period(quotas: tuple[LimitTable, LimitTable]) -> None:
    old, new = quotas
    set_head(old, b"acme", -1, (1000, MAY, 0, END - 50_000_000))
    set_head(old, b"acme", 0, (40, JUNE, 0, END))
    set_head(old, b"acme", 1, (500, MAY, 0, END - 50_000_000))
    set_head(old, b"acme", 2, (2, JUNE, 0, END))
    carry = Carry(old, new)
    assert carry.slice(TODAY, NEVER) == (1, True)
    assert foreign_head(new, b"acme") == [42, JUNE, 0, END]
    assert new.words[claim(new, b"acme") + at.ROW_WIDTH] == old.words[claim(old, b"acme") + at.ROW_WIDTH]
    assert carry.slice(TODAY, NEVER) == (0, True)
    # A refund lowers the count.
    set_head(old, b"acme", 0, (39,))
    assert carry.slice(TODAY, NEVER) == (1, True)
    assert foreign_head(new, b"acme") == [41, JUNE, 0, END]


@pytest.mark.parametrize(
    ("heads", "carried"),
    [
        ({-1: (1000, JUNE, 0, END), 3: (1, JUNE, 0, END)}, 1001),
        ({0: (40, JUNE, 0, END), 1: (3, JUNE + 7, 0, END + 18_000_000_000)}, 40),
    ],
    ids=["of an older table", "without a period begun by a wrong clock"],
)
def test_a_quota_is_carried_on(
    quotas: tuple[LimitTable, LimitTable], heads: dict[int, tuple[int, ...]], carried: int
) -> None:
    old, new = quotas
    for column, words in heads.items():
        set_head(old, b"acme", column, words)
    Carry(old, new).slice(TODAY, NEVER)
    assert foreign_head(new, b"acme") == [carried, JUNE, 0, END]


@pytest.mark.parametrize("ended", [1_000_000, -1_000_000])
def test_started_period_continues_after_a_clock_step_back(quotas: tuple[LimitTable, LimitTable], ended: int) -> None:
    old, new = quotas
    # One worker has not read since June began. The clock step decides whether May counts as over.
    set_head(old, b"acme", 0, (500, MAY, 0, int(TODAY * 1000) + ended))
    set_head(old, b"acme", 1, (40, JUNE, 0, END + 2_592_000_000))
    set_head(old, b"acme", 2, (2, JUNE, 0, END + 2_592_000_000))
    Carry(old, new).slice(TODAY, NEVER)
    assert foreign_head(new, b"acme") == [42, JUNE, 0, END + 2_592_000_000]


def test_a_period_that_has_just_ended_is_carried(
    quotas: tuple[LimitTable, LimitTable],
) -> None:
    old, new = quotas
    ended = int(TODAY * 1000) - 1_000_000
    set_head(old, b"acme", 0, (500, MAY, 0, ended))
    assert Carry(old, new).slice(TODAY, NEVER) == (1, True)
    assert foreign_head(new, b"acme") == [500, MAY, 0, ended]


def test_acknowledged_counts_are_carried(old: LimitTable, new: LimitTable) -> None:
    count(old, b"acme", 0, CELL, 7)
    old.words[claim(old, b"acme") + at.ROW_ACKNOWLEDGED] = 5
    Carry(old, new).slice(NOW, NEVER)
    row = new.peek(new.make_key(b"acme"))
    assert row is not None
    assert new.words[row + at.ROW_ACKNOWLEDGED] == 5
    new.words[row + at.ROW_ACKNOWLEDGED] = 9
    count(old, b"acme", 0, CELL, 7)
    Carry(old, new).slice(NOW, NEVER)
    assert new.words[row + at.ROW_ACKNOWLEDGED] == 9, "a carry does not lower the acknowledged count of the new table"
