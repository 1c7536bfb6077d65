"""Sixty-four workers: one call sums the siblings' counts, and the result equals the sum word by word."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.cells import MASK, pack
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.counts import Counts, join_rings
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.window import SlidingWindow
from tests.support.tables import CUSTOMERS, limits, make

START = 51_000_000.0
WINDOW = 60.0
CELL_SECONDS = 2.142858
WORKERS = 64

Join = Callable[[int], LimitTable]


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """A table with sixty-four workers and as many spare columns, opened by the worker of a column."""
    path = make(tmp_path, CUSTOMERS._replace(rows=20, columns=2 * WORKERS))
    return lambda column: limits(path, column)


def join_all(join: Join, columns: range) -> list[LimitTable]:
    """Return the tables of these columns' workers. All know each other."""
    tables = [join(column) for column in columns]
    for table in tables:
        table.declare_column()
    for table in tables:
        table.refresh_columns()
    return tables


def get_window(table: LimitTable, limit: int) -> SlidingWindow:
    policy = Policies(table).get_policy(Rule("basic", limit, WINDOW), b"acme")
    assert isinstance(policy, SlidingWindow)
    return policy


def count_word_by_word(table: LimitTable, counts: Counts) -> int:
    """Return the siblings' counts of this cell, computed by the definition."""
    cell, base = counts.window.cell, counts.window.base
    place = table.rings_of(counts.row) + cell % table.layout.ring
    words = [table.words[place + table.layout.ring_at(column)] for column in table.siblings]
    return sum(word - base for word in words if 0 < word - base <= MASK)


def test_adjacent_rings_are_joined() -> None:
    assert list(join_rings([5], 3)) == [(5, 8)]
    assert list(join_rings([0, 3, 6, 12, 15, 30], 3)) == [(0, 9), (12, 18), (30, 33)]


def test_summed_siblings_are_the_sum_word_by_word(join: Join, seed: int) -> None:
    chance, limit = random.Random(seed), 1 << 40
    tables = join_all(join, range(WORKERS))
    windows = [get_window(table, limit) for table in tables]
    now, summed = START, 0
    for _ in range(6000):
        # The time stays within a cell, or enters the next one. Rarely it moves a ring or more, also backwards.
        step = chance.random()
        now += (
            0.001 if step < 0.9 else CELL_SECONDS if step < 0.98 else CELL_SECONDS * chance.choice((5, 31, 32, 64, -33))
        )
        number = chance.randrange(WORKERS)
        table, window = tables[number], windows[number]
        # A worker's clock may be a little ahead.
        moment = now + chance.choice((0, 0, 0, CELL_SECONDS))
        left, counts = window.left(moment), window.counts
        assert counts.headroom is not None
        assert left == limit - counts.closed - counts.own - counts.headroom.seen
        assert counts.sum_siblings(counts.headroom) == count_word_by_word(table, counts)
        summed += bool(counts.window.runs)
        if chance.random() < 0.7:
            window.charge(chance.choice((1, 2, 1000, MASK // 3)))
    assert summed > 5000


def test_words_that_fall_and_rise_at_once_do_not_pass_for_each_other(join: Join) -> None:
    # A clock was set back by more than a ring: one word belongs to a future cell, and another to a past one.
    tables = join_all(join, range(12))
    window = get_window(tables[0], 40)  # Too low for headroom.
    window.left(START)
    counts = window.counts
    cell, ring = counts.window.cell, tables[0].layout.ring
    place = tables[0].rings_of(counts.row) + cell % ring
    words = tables[0].words
    words[place + 3 * ring], words[place + 4 * ring] = pack(cell - ring, 7), pack(cell + ring, 9)
    assert window.left(START) == 40
    words[place + 3 * ring], words[place + 4 * ring] = pack(cell, 1), pack(cell, 1)
    assert window.left(START) == 38


@pytest.mark.parametrize("seats", [1, 100])
def test_sixty_four_workers_in_turns_admit_exactly_the_limit(join: Join, seed: int, seats: int) -> None:
    chance = random.Random(seed)
    windows = [get_window(table, 500) for table in join_all(join, range(WORKERS))]
    passed, now = 0, START
    for _ in range(4000):
        now += 0.004
        window = chance.choice(windows[:: WORKERS // seats or 1])
        if window.left(now) >= 1:
            window.charge()
            passed += 1
    assert passed == 500


def test_columns_between_siblings_that_are_nobodys_are_not_summed(join: Join) -> None:
    # Every third of forty columns belongs to a dead worker with counts of this cell. They are counted once.
    tables = join_all(join, range(40))
    windows = [get_window(table, 200) for table in tables]  # Too low for headroom.
    for window in windows:
        window.left(START)
        window.charge()
    living = frozenset(column for column in range(40) if column % 3)
    for table in tables:
        table.limit_active_columns(living)
    for column in living:
        tables[column].refresh_columns()
    assert {windows[column].left(START + 0.01) for column in living} == {160}
    for column in living:
        windows[column].charge()
    assert {windows[column].left(START + 0.02) for column in living} == {160 - len(living)}
