"""Gauges of current use: a value counts while the process that set it lives."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.columns import acquire_column
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS, Reclaim
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from tests.edge.counters.gauges import Process, use
from tests.support.tables import CUSTOMERS, WIDTH, limits, make, opened

KEY = b"acme"
BORN = 1000.0
IDLE_FROM = BORN + 28 * WIDTH / 1e6 + IDLE_SECONDS + 0.01
NEVER = float("inf")

Start = Callable[[], Process]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, CUSTOMERS)


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start a process that has things in use."""
    with ExitStack() as running:
        yield lambda: running.enter_context(Process(path))


def worker(path: Path) -> LimitTable:
    """A worker in this process, on a column of its own."""
    file = opened(path)
    return LimitTable(file, acquire_column([file]))


def row_of(table: LimitTable) -> int:
    row = table.peek(table.make_key(KEY))
    assert row is not None
    return row


def test_gauges_of_all_processes_are_summed(path: Path, start: Start) -> None:
    one, other = start(), start()
    one.use(KEY, 3)
    other.use(KEY, 4)
    supervisor = limits(path)
    row = row_of(supervisor)
    assert supervisor.in_use(row) == 7
    one.use(KEY, 2)
    assert supervisor.in_use(row) == 6
    mine = worker(path)
    assert mine.column == 2
    assert mine.declare_column()
    use(mine, KEY, 5)
    assert mine.in_use(row) == supervisor.in_use(row) == 11


def test_stopped_process_still_counts_in_gauges(path: Path, start: Start) -> None:
    hung = start()
    hung.use(KEY, 3)
    hung.process.send_signal(signal.SIGSTOP)
    supervisor = limits(path)
    assert supervisor.in_use(row_of(supervisor)) == 3


def test_process_number_is_stable_when_other_processes_join(path: Path, start: Start) -> None:
    first = worker(path)
    row = use(first, KEY, 2)
    owner = first.owner_of(0)
    assert owner == first.owner
    assert owner >> 31
    # On a spare column, which the first has to take notice of.
    start()
    spare = worker(path)
    assert spare.column == 2
    assert spare.declare_column()
    assert not spare.seen_by(frozenset({0}), spare.version)
    assert first.refresh_columns()
    assert spare.seen_by(frozenset({0}), spare.version)
    assert spare.owner_of(0) == owner
    assert spare.in_use(row) == 2


def test_foreign_gauge_counts_without_an_owner(path: Path) -> None:
    table = worker(path)
    row = use(table, KEY, 2)
    table.write_foreign(row, {}, (0, 5))
    assert table.in_use(row) == 7


def test_row_state_marks_rows_with_gauges(path: Path) -> None:
    table = worker(path)
    row = use(table, KEY, 0)
    assert table.words[row + at.ROW_STATE] == len(KEY) | HAS_GAUGES
    assert table.find(table.make_key(KEY), WIDTH, BORN, 0) == (row, 2, False)
    assert table.words[row + at.ROW_STATE] & HAS_GAUGES
    row, _, _ = table.find(table.make_key(b"globex"), WIDTH, BORN)
    assert not table.words[row + at.ROW_STATE] & HAS_GAUGES


# ---- which rows are reclaimed


def test_gauge_row_in_use_by_a_process_is_not_reclaimed(path: Path, start: Start) -> None:
    one = start()
    one.use(KEY, 1)
    supervisor = limits(path)
    reclaim = Reclaim(supervisor)
    assert reclaim.slice(IDLE_FROM, NEVER) == (0, 0, 0)
    one.use(KEY, 0)
    assert reclaim.slice(IDLE_FROM, NEVER) == (1, 0, 0)
    # Taken in the moment between.
    one.use(KEY, 1)
    assert reclaim.slice(IDLE_FROM + GRACE_SECONDS, NEVER)[1:] == (0, 0)
    assert supervisor.in_use(row_of(supervisor)) == 1


def test_gauge_row_in_use_on_another_host_is_not_reclaimed(path: Path) -> None:
    table = worker(path)
    row = use(table, KEY, 0)
    table.write_foreign(row, {}, (0, 1))
    reclaim = Reclaim(limits(path))
    assert reclaim.slice(IDLE_FROM, NEVER) == (0, 0, 0)
    table.write_foreign(row, {}, (0, 0))
    assert reclaim.slice(IDLE_FROM, NEVER) == (1, 0, 0)


def test_a_word_in_the_place_of_a_gauge_keeps_no_other_row(path: Path) -> None:
    table = worker(path)
    row, _, _ = table.find(table.make_key(KEY), WIDTH, BORN)
    table.words[row + table.head_at + at.LEVEL] = table.owner << at.OWNER_SHIFT | 77
    assert Reclaim(limits(path)).slice(IDLE_FROM, NEVER) == (1, 0, 0)
