"""The hub's column: what other hosts count stands beside what workers do, and none of them ever takes it."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters import claims, columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.carry import Carry
from edgeproxy.edge.counters.cells import cell_number
from edgeproxy.edge.counters.maintenance import UNHELD_SECONDS, TableMaintenance
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import layouts
from edgeproxy.edge.counters.store import Store
from tests.support.tables import (
    CUSTOMERS,
    QUOTAS,
    SHARED,
    WIDTH,
    claim,
    limits,
    list_foreign_counts,
    make,
    opened,
    write_cell,
)

NOW = 5000.0
CELL = cell_number(NOW, WIDTH)
HUB = 4


def test_hub_column_is_the_last_of_an_odd_number() -> None:
    assert SHARED.hub == HUB
    assert CUSTOMERS.hub is None


def test_only_tables_of_limits_have_one_and_only_with_a_hub() -> None:
    assert [layout.hub for layout in layouts(2, 100, 100)] == [None] * 7
    with_hub = {layout.kind: layout.hub for layout in layouts(2, 100, 100, hub=True)}
    assert with_hub == dict.fromkeys(("customers", "addresses", "end_users", "quotas"), 4) | dict.fromkeys(
        ("usage", "metrics", "connections")
    )


def test_quota_table_has_a_hub_column_if_there_is_a_ledger() -> None:
    assert [layout.hub for layout in layouts(2, 100, 100, ledger=True)] == [None, None, 4, None, None, None, None]
    assert layouts(2, 100, 100, ledger=True, hub=True) == layouts(2, 100, 100, hub=True)


def test_count_elsewhere_is_at_least_the_ledger_count(tmp_path: Path) -> None:
    table = limits(make(tmp_path, QUOTAS._replace(columns=5)), 0)
    hub, row = table.hub, claim(table, b"acme")
    assert hub is not None

    def counted() -> tuple[int, int]:
        *_, last = table.heads(row).periods(elsewhere=True)
        return last

    assert table.retained_until(row) == 0
    hub.write_ledger(row, 7, 50, 900.0)
    assert (counted(), table.retained_until(row)) == ((7, 50), 900.0)
    for told, known in ((60, 60), (40, 50), (70, 70)):
        hub.write_period(row, 7, told)
        assert counted() == (7, known)
    hub.write_ledger(row, 7, 45, 900.0)
    assert counted() == (7, 70), "the count never falls within a period"
    hub.write_period(row, 8, 1)
    assert counted() == (8, 1)
    hub.write_ledger(row, 7, 99, 900.0)
    assert counted() == (8, 1), "of a period that is over"
    hub.write_ledger(row, 8, 20, 1800.0)
    assert (counted(), table.retained_until(row)) == ((8, 20), 1800.0)
    hub.write_ledger(row, 9, 3, 2700.0)
    assert counted() == (9, 3)


def test_hub_column_is_active_from_the_start(tmp_path: Path) -> None:
    table = limits(make(tmp_path, SHARED), 0)
    assert table.active_columns() == {0, 1, HUB}
    assert HUB in table.siblings


def test_no_worker_acquires_the_hub_column(tmp_path: Path) -> None:
    store = Store.prepare(tmp_path, workers=1, customers=10, addresses=10, hub=True)
    hub = store.customers.layout.hub
    workers = [Store.join(tmp_path) for _ in range(2)]
    try:
        assert hub == 2
        assert sorted(worker.column for worker in workers if worker.column is not None) == [0, 1]
        with pytest.raises(columns.NoFreeColumnError):
            Store.join(tmp_path)
    finally:
        for one in (*workers, store):
            one.close()


def test_hub_column_is_never_released(tmp_path: Path) -> None:
    store = Store.prepare(tmp_path, workers=1, customers=10, addresses=10, hub=True)
    try:
        tending = TableMaintenance(store)
        tending.release_columns(store.customers, NOW)
        tending.release_columns(store.customers, NOW + UNHELD_SECONDS)
        assert store.customers.active_columns() == {2}
    finally:
        store.close()


def test_hub_column_gauge_counts_without_a_holder(tmp_path: Path) -> None:
    table = LimitTable(opened(make(tmp_path, SHARED)))
    row, _, _ = table.find(table.make_key(b"acme"), WIDTH, NOW, HAS_GAUGES)
    table.words[row + table.layout.head(HUB) + at.GAUGE] = 3
    assert table.in_use(row) == 3
    assert table.in_use(row, without=HUB) == 0


@pytest.mark.parametrize(("columns_after", "carried"), [(7, 3), (6, 8)])
def test_hub_counts_carry_over_only_to_a_table_without_a_hub_column(
    tmp_path: Path, columns_after: int, carried: int
) -> None:
    old = limits(make(tmp_path, SHARED), 0)
    new = limits(make(tmp_path, SHARED._replace(columns=columns_after), generation=2), 0)
    row = claim(old, b"acme")
    for column, count in ((0, 3), (HUB, 5)):
        write_cell(old, row, column, CELL, count)
        old.words[row + old.layout.head(column) + at.CUM] = count
    gauge, _, _ = old.find(old.make_key(b"gauge"), WIDTH, NOW, HAS_GAUGES)
    old.words[gauge + old.layout.head(HUB) + at.GAUGE] = 5
    Carry(old, new).slice(NOW, float("inf"))
    there = claim(new, b"acme")
    assert list_foreign_counts(new, there) == {CELL: carried}
    assert new.words[there + new.layout.head(-1) + at.CUM] == carried
    assert (new.peek(new.make_key(b"gauge")) is None) == (carried == 3)


def test_supervisors_that_tell_the_hub_are_counted_and_the_clock_can_be_moved(tmp_path: Path) -> None:
    starts = []
    for _ in range(2):
        store = Store.prepare(tmp_path, workers=1, customers=10, addresses=10)
        starts.append(store.control.count_start())
        store.control.write_offset(123.5)
        assert store.offset == 123.5
        store.close()
    assert starts == [1, 2]


def test_hub_status_written_by_the_supervisor_is_read_back(tmp_path: Path) -> None:
    hub = limits(make(tmp_path, SHARED), 0).hub
    assert hub is not None
    assert (hub.is_known, hub.hosts, hub.is_away) == (False, 1, False)
    hub.write_hosts(3, is_away=False)
    assert (hub.is_known, hub.hosts, hub.is_away) == (True, 3, False)
    hub.write_away()
    assert (hub.hosts, hub.is_away) == (3, True)
    hub.write_hosts(4, is_away=True)
    assert (hub.hosts, hub.is_away) == (4, True)
    for on_loss in ("share", "full", "deny"):
        hub.on_loss = on_loss
        assert hub.on_loss == on_loss


# ---- claims


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
