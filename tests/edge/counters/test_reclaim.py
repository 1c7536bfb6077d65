from pathlib import Path
from time import perf_counter

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELL_US_MIN, cell_number
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS, PERIOD_RETENTION_SECONDS, Reclaim
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable
from tests.support.tables import CUSTOMERS, QUOTAS, WIDTH, claim, limits, make, number_of, write_cell, write_head

BOTH_ORDERS = True

BORN = 1000.0
WINDOW = 28 * WIDTH / 1e6
FROM = BORN + WINDOW + IDLE_SECONDS + 0.01
"""The earliest time of idleness of an unused row."""
NEVER = float("inf")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, CUSTOMERS)


@pytest.fixture
def table(path: Path) -> LimitTable:
    return limits(path)


def generation(table: LimitTable, row: int) -> int:
    return table.words[row + at.ROW_GENERATION]


def count(table: LimitTable, row: int, now: float, column: int = 1) -> float:
    """Count once in the cell of `now`. Returns when that cell ends."""
    cell = cell_number(now, WIDTH)
    write_cell(table, row, column, cell, 1)
    return (cell + 1) * WIDTH / 1e6


def test_a_row_is_idle_a_minute_after_its_window(table: LimitTable) -> None:
    row = claim(table, b"acme", BORN)
    reclaim = Reclaim(table)
    assert not reclaim.idle(row, FROM - 0.02)
    assert reclaim.idle(row, FROM)
    for column in range(CUSTOMERS.columns):
        ended = count(table, row, BORN + 500.0 * column, column)
        assert not reclaim.idle(row, ended + WINDOW + IDLE_SECONDS - 0.01)
        assert reclaim.idle(row, ended + WINDOW + IDLE_SECONDS + 0.01)


@pytest.mark.parametrize("column", range(-1, CUSTOMERS.columns))
def test_row_is_reclaimed_after_the_last_column_expires(table: LimitTable, column: int) -> None:
    row = claim(table, b"acme", BORN)
    write_head(table, row, column, (0, 0, 0, int((FROM + 500) * 1000)))
    reclaim = Reclaim(table)
    assert reclaim.slice(FROM + 499.9, NEVER) == (0, 0, 0)
    assert reclaim.slice(FROM + 500, NEVER) == (1, 0, 0)


def test_row_in_use_again_while_closing_is_revived(table: LimitTable) -> None:
    row = claim(table, b"acme", BORN)
    reclaim = Reclaim(table)
    assert reclaim.slice(FROM, NEVER) == (1, 0, 0)
    write_head(table, row, 2, (0, 0, 0, int((FROM + 500) * 1000)))
    assert reclaim.slice(FROM + GRACE_SECONDS, NEVER) == (0, 0, 1)
    assert table.peek(table.make_key(b"acme")) == row


def test_quota_row_is_reclaimed_after_its_period_by_any_clock(tmp_path: Path) -> None:
    table = limits(make(tmp_path, QUOTAS), 1)
    row, _, _ = table.find(table.make_key(b"acme"), CELL_US_MIN, BORN, HAS_PERIODS)
    table.words[row + table.head_at + at.UNTIL] = int((BORN + 86_400) * 1000)
    reclaim = Reclaim(table)
    over = BORN + 86_400 + PERIOD_RETENTION_SECONDS
    assert reclaim.slice(over - 1, NEVER) == (0, 0, 0)
    assert reclaim.slice(over, NEVER) == (1, 0, 0)
    assert reclaim.slice(over + GRACE_SECONDS, NEVER) == (0, 1, 0)


def test_words_of_a_clock_that_was_ahead_do_not_keep_a_row(table: LimitTable) -> None:
    row = claim(table, b"acme", BORN)
    count(table, row, BORN + 10_000)
    ended = count(table, row, BORN + 5)
    assert Reclaim(table).idle(row, ended + WINDOW + IDLE_SECONDS + 0.01)
    assert not Reclaim(table).idle(row, ended + WINDOW + IDLE_SECONDS - 0.01)


def test_row_claimed_by_a_fast_clock_can_be_reclaimed(table: LimitTable) -> None:
    row = claim(table, b"acme", BORN + 3600)
    assert Reclaim(table).idle(row, BORN)
    assert not Reclaim(table).idle(row, BORN + 3599.5)


def test_closing_rows_are_reclaimed_after_the_clock_is_set_back(table: LimitTable) -> None:
    claim(table, b"acme", BORN)
    reclaim = Reclaim(table)
    assert reclaim.slice(FROM + 3600, NEVER) == (1, 0, 0)
    claim(table, b"globex", BORN)
    assert reclaim.slice(FROM, NEVER) == (1, 0, 0)
    assert reclaim.slice(FROM + GRACE_SECONDS - 0.1, NEVER) == (0, 0, 0)
    assert reclaim.slice(FROM + GRACE_SECONDS, NEVER) == (0, 2, 0)


def test_while_the_flock_is_not_to_be_had_a_row_stays_closing(table: LimitTable, path: Path) -> None:
    row = claim(table, b"acme", BORN)
    reclaim = Reclaim(table)
    idle = FROM
    reclaim.slice(idle, NEVER)
    other = limits(path, 0)
    assert other.file.lock()
    assert reclaim.slice(idle + GRACE_SECONDS, NEVER) == (0, 0, 0)
    assert generation(table, row) == 3
    other.file.unlock()
    assert reclaim.slice(idle + GRACE_SECONDS, NEVER) == (0, 1, 0)


def test_successor_reclaims_rows_that_were_closing(table: LimitTable, path: Path) -> None:
    claim(table, b"acme", BORN)
    idle = FROM
    Reclaim(table).slice(idle, NEVER)
    successor = Reclaim(limits(path))
    assert successor.slice(idle + 1, NEVER) == (0, 0, 0)
    assert successor.slice(idle + GRACE_SECONDS + 0.1, NEVER) == (0, 1, 0)


def test_reclaim_slice_ends_in_time_and_the_next_resumes(table: LimitTable) -> None:
    for number in range(CUSTOMERS.rows):
        claim(table, b"%d" % number, BORN)
    reclaim = Reclaim(table)
    idle = FROM
    assert reclaim.slice(idle, perf_counter()) == (0, 0, 0)
    closed = 0
    slices = 0
    while closed < CUSTOMERS.rows:
        one, _, _ = reclaim.slice(idle, perf_counter() + 0.000_02)
        closed += one
        slices += 1
        assert slices < 10_000
    assert reclaim.slice(idle + GRACE_SECONDS, perf_counter()) == (0, 0, 0)
    assert reclaim.slice(idle + GRACE_SECONDS, NEVER) == (0, CUSTOMERS.rows, 0)
    assert table.rows_in_use == 0


def test_freed_rows_are_passed_over(table: LimitTable) -> None:
    row = claim(table, b"acme", BORN)
    table.free(number_of(table, row))
    assert Reclaim(table).slice(1e6, NEVER) == (0, 0, 0)
