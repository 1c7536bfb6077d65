"""Claims of the hub in columns: a worker uses a part and returns the rest."""

from pathlib import Path

from edgeproxy.edge.counters import claims, columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.store import Store
from tests.support.tables import CUSTOMERS, claim, limits, make, opened

SHARED = CUSTOMERS._replace(columns=5)


def write(table: LimitTable, row: int, column: int, want: int, used: int, given: int) -> None:
    head = row + table.layout.head(column)
    for word, value in ((at.WANT, want), (at.USED, used), (at.GIVEN, given)):
        table.words[head + word] = value


def read(table: LimitTable, row: int, column: int) -> tuple[int, ...]:
    """Wanted, used, given."""
    head = row + table.layout.head(column)
    return tuple(table.words[head + at.WANT : head + at.GIVEN + 1].tolist())


def test_clearing_a_column_settles_its_claims_only(tmp_path: Path) -> None:
    table = limits(make(tmp_path, SHARED), 1)
    rows = [claim(table, b"%d" % number) for number in range(4)]
    for row, words in zip(rows, ((7, 3, 5), (0, 0, 0), (6, 6, 6), (2, 0, 0)), strict=True):
        for column in (1, 2):
            write(table, row, column, *words)
    assert [claims.in_hand(table, row, 1) for row in rows] == [2, 0, 0, 0]
    assert [claims.is_settled(table, row, 1) for row in rows] == [False, True, True, False]
    claims.clear_column(table, 1)
    assert [read(table, row, 1) for row in rows] == [(5, 5, 5), (0, 0, 0), (6, 6, 6), (0, 0, 0)]
    assert [read(table, row, 2) for row in rows] == [(7, 3, 5), (0, 0, 0), (6, 6, 6), (2, 0, 0)]


def test_clearing_a_column_changes_nothing_in_an_unshared_table(tmp_path: Path) -> None:
    table = limits(make(tmp_path, CUSTOMERS), 1)
    row = claim(table, b"acme")
    write(table, row, 1, 9, 8, 7)
    claims.clear_column(table, 1)
    assert read(table, row, 1) == (9, 8, 7)


def test_claims_are_not_returned_while_a_request_waits(tmp_path: Path) -> None:
    table = limits(make(tmp_path, SHARED), 1)
    row = claim(table, b"acme")
    write(table, row, 1, 6, 3, 5)
    claims.return_claims(table, row)
    assert read(table, row, 1) == (6, 3, 5)
    write(table, row, 1, 5, 3, 5)
    claims.return_claims(table, row)
    assert read(table, row, 1) == (5, 5, 5)


def test_a_worker_begins_without_the_claims_of_the_one_before(tmp_path: Path) -> None:
    supervisor = Store.prepare(tmp_path, workers=1, customers=10, addresses=10, hub=True)
    worker = Store.join(tmp_path)
    table = supervisor.customers
    row = claim(table, b"acme")
    write(table, row, 0, 7, 3, 5)
    worker.close()
    again = Store.join(tmp_path)
    assert again.column == 0
    assert read(table, row, 0) == (5, 5, 5)
    again.close()
    supervisor.close()


def test_borrowed_column_is_held_by_one_process_only(tmp_path: Path) -> None:
    path = make(tmp_path, SHARED)
    here, there = opened(path), opened(path)
    with columns.borrow_column(here, 1) as mine:
        assert mine
        assert columns.list_held_columns(there) == {1}
        with columns.borrow_column(there, 1) as its:
            assert not its
        assert columns.acquire_column([there]) == 0
    assert columns.list_held_columns(here) == {0}
