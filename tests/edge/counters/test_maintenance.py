from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import cell_number, pack, width_us
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.index import TableFullError
from edgeproxy.edge.counters.maintenance import UNHELD_SECONDS
from edgeproxy.edge.counters.reclaim import GRACE_SECONDS, IDLE_SECONDS
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import TallyTable
from tests.edge.counters.conftest import Supervise
from tests.edge.counters.gauges import use
from tests.support.tables import claim, list_foreign_counts

Work = Callable[[], Store]
NOW = 5e7
WIDTH = width_us(60, 28)
CELL = cell_number(NOW, WIDTH)


def count(table: LimitTable, key: bytes, count: int, now: float = NOW) -> None:
    """Count in the table's own column, as a worker does."""
    row, _, _ = table.find(table.make_key(key), WIDTH, now)
    cell = cell_number(now, WIDTH)
    table.words[table.rings_of(row) + table.own_at + cell % 32] = pack(cell, count)
    table.words[row + table.head_at] += count


def foreign(table: LimitTable, key: bytes) -> int | None:
    row = table.peek(table.make_key(key))
    return None if row is None else list_foreign_counts(table, row).get(CELL, 0)


def period(table: LimitTable, key: bytes, count: int) -> None:
    """Count this amount of a quota in the table's own column."""
    row, _, _ = table.find(table.make_key(key), WIDTH, NOW, HAS_PERIODS)
    head = row + table.head_at
    table.words[head + at.CUM], table.words[head + at.PERIOD] = count, 24_306
    table.words[head + at.UNTIL] = int((NOW + 1e6) * 1000)


def quota(table: LimitTable, key: bytes = b"acme") -> int | None:
    """Return the sum of a quota over all columns."""
    row = table.peek(table.make_key(key))
    if row is None:
        return None
    heads = [row + table.layout.head(column) for column in range(-1, table.layout.columns)]
    return sum(table.words[head + at.CUM] for head in heads if table.words[head + at.PERIOD] == 24_306)


def in_use(table: LimitTable, key: bytes = b"acme") -> int | None:
    row = table.peek(table.make_key(key))
    return None if row is None else table.in_use(row)


def tables(state: Path, kind: str) -> list[str]:
    return sorted(path.name for path in state.glob(f"{kind}.*.tbl"))


def test_idle_rows_are_reclaimed(supervise: Supervise, work: Work) -> None:
    supervisor, worker = supervise(), work()
    for number in range(30):
        count(worker.customers, b"%d" % number, 1)
    assert supervisor.customers.rows_in_use == 30
    later = NOW + 63 + IDLE_SECONDS
    closed = reclaimed = 0
    for step in range(100):
        tended = supervisor.maintain(later + step * GRACE_SECONDS)
        closed, reclaimed = closed + tended.closed, reclaimed + tended.reclaimed
        if reclaimed == 30:
            break
    assert closed == 30
    assert supervisor.customers.rows_in_use == 0


def test_maintenance_repairs_a_killed_claimers_row_count(supervise: Supervise, work: Work) -> None:
    supervisor, worker = supervise(), work()
    count(worker.customers, b"acme", 1)
    worker.customers.words[at.PENDING] = 1
    worker.customers.words[at.IN_USE] = 17
    supervisor.maintain(NOW)
    assert supervisor.customers.rows_in_use == 1
    assert not worker.customers.words[at.PENDING]
    assert not worker.customers.words[at.DAMAGED]


def test_a_claim_that_is_under_way_is_let_be(supervise: Supervise, work: Work) -> None:
    supervisor, worker = supervise(), work()
    assert worker.customers.file.lock()
    worker.customers.words[at.PENDING] = 1
    supervisor.maintain(NOW)
    assert worker.customers.words[at.PENDING]
    worker.customers.words[at.PENDING] = 0
    worker.customers.file.unlock()


def test_a_claim_that_has_just_ended_needs_no_mending(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, worker = supervise(), work()
    table = supervisor.customers
    worker.customers.words[at.PENDING] = 1
    lock = table.file.lock

    def late() -> bool:
        worker.customers.words[at.PENDING] = 0
        return lock()

    monkeypatch.setattr(table.file, "lock", late)
    monkeypatch.setattr(
        "edgeproxy.edge.counters.row_repair.repair", lambda _: pytest.fail("there is nothing to repair")
    )
    supervisor.maintain(NOW)


def test_a_column_without_a_worker_for_a_minute_is_read_once_a_cell(
    supervise: Supervise, work: Work, state: Path
) -> None:
    supervisor, one = supervise(), work()
    two = Store.join(state)
    two.close()
    supervisor.maintain(NOW)
    supervisor.maintain(NOW + UNHELD_SECONDS - 1)
    assert not one.refresh_columns()
    supervisor.maintain(NOW + UNHELD_SECONDS)
    assert one.refresh_columns()
    assert one.customers.siblings_at == one.addresses.siblings_at == ()
    assert one.customers.span == 2 * 32
    assert work().column == 1
    assert one.refresh_columns()
    assert one.customers.siblings_at == (32,)


def test_while_the_flock_is_not_to_be_had_columns_stay(supervise: Supervise, work: Work) -> None:
    supervisor, one = supervise(), work()
    supervisor.maintain(NOW)
    assert one.customers.file.lock()
    supervisor.maintain(NOW + UNHELD_SECONDS)
    assert not one.customers.refresh_columns()
    one.customers.file.unlock()
    supervisor.maintain(NOW + UNHELD_SECONDS)
    assert one.customers.refresh_columns()


def test_limits_carry_over_to_a_new_layout_until_the_last_old_worker_ends(
    supervise: Supervise, work: Work, state: Path
) -> None:
    before = supervise(workers=1, offset=NOW)
    offset = before.offset
    old = Store.join(state)
    key = old.customers.make_key(b"acme")

    def foreign_now(table: LimitTable) -> int:
        row = table.peek(table.make_key(b"acme"))
        assert row is not None
        return sum(list_foreign_counts(table, row).values())

    count(old.customers, b"acme", 3, monotonic() + offset)
    after = supervise(workers=2)
    # Earlier counts are there from the start.
    assert foreign_now(after.customers) == 3
    row = old.customers.peek(key)
    assert row is not None
    ring = old.customers.rings_of(row)
    word = max(old.customers.words[ring : ring + 32].tolist())
    old.customers.words[ring + (word >> 28) % 32] = word + 4
    old.customers.words[row + old.customers.head_at] += 4
    assert after.maintain(monotonic() + offset).carried == 1
    assert foreign_now(after.customers) == 7
    assert tables(state, "customers") == ["customers.1.tbl", "customers.2.tbl"]
    old.customers.words[ring + (word >> 28) % 32] += 1
    old.customers.words[row + old.customers.head_at] += 1
    old.close()
    for _ in range(20):
        after.maintain(monotonic() + offset)
    assert tables(state, "customers") == ["customers.2.tbl"]
    assert foreign_now(after.customers) == 8


def test_the_oldest_file_goes_first(supervise: Supervise, state: Path) -> None:
    supervise(workers=1)
    oldest = Store.join(state)
    supervise(workers=2)
    newest = supervise(workers=3)
    for _ in range(5):
        newest.maintain(NOW)
    assert tables(state, "customers") == ["customers.1.tbl", "customers.2.tbl", "customers.3.tbl"]
    assert tables(state, "usage") == ["usage.1.tbl", "usage.3.tbl"]
    oldest.close()
    for _ in range(5):
        newest.maintain(NOW)
    assert tables(state, "customers") == ["customers.3.tbl"]
    assert tables(state, "usage") == ["usage.3.tbl"]


def test_two_supervisors_with_different_tables_serve_at_once(supervise: Supervise, work: Work, state: Path) -> None:
    one = supervise(workers=1, offset=NOW)
    old = Store.join(state)
    assert one.maintain(monotonic() + NOW).holder
    two = supervise(workers=2)
    new = work()
    # The first supervisor still holds the identity, and maintains the tables of both.
    use(old.customers, b"acme", 2)
    use(new.customers, b"acme", 3)
    period(old.quotas, b"acme", 40)
    period(new.quotas, b"acme", 2)
    assert not two.maintain(monotonic() + NOW).holder
    assert one.maintain(monotonic() + NOW).carried == 2
    assert in_use(new.customers) == in_use(one.customers) == 5
    assert in_use(old.customers) == 2
    assert quota(new.quotas) == quota(two.quotas) == 42
    assert quota(old.quotas) == 40
    period(old.quotas, b"acme", 41)
    use(old.customers, b"acme", 1)
    one.close()
    # The process was killed during a request.
    old.close()
    for _ in range(3):
        assert two.maintain(monotonic() + NOW).holder
    assert tables(state, "customers") == ["customers.2.tbl"]
    assert tables(state, "quotas") == ["quotas.2.tbl"]
    assert in_use(new.customers) == 3
    assert quota(new.quotas) == 43


@pytest.mark.parametrize("slices_before", range(12, 17))
def test_last_counts_of_the_oldest_file_reach_the_newest(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch, slices_before: int
) -> None:
    # Each slice handles one row, and the two old files have a different number of rows. The younger file's round may
    # then end together with the older file's last round, after it passed rows that the older one has just written.
    monkeypatch.setattr("edgeproxy.edge.counters.rows.GAUGES_BLOCK", 1)
    monkeypatch.setattr("edgeproxy.edge.counters.carry.ROWS_PER_CLOCK_READ", 1)
    monkeypatch.setattr("edgeproxy.edge.counters.maintenance.RETIRE_SECONDS", 0.0)
    supervise(workers=1, offset=NOW)
    oldest = Store.join(state)
    for key in (b"acme", b"globex", b"initech"):
        use(oldest.customers, key, 1)
        period(oldest.quotas, key, 10)
    middle = supervise(workers=2)
    claim(middle.customers, b"hooli", NOW)
    claim(middle.quotas, b"hooli", NOW)
    newest = supervise(workers=3)
    for _ in range(slices_before):
        newest.maintain(monotonic() + NOW)
    period(oldest.quotas, b"acme", 11)
    oldest.close()
    slices = 0
    while len(tables(state, "customers")) + len(tables(state, "quotas")) > 2:
        newest.maintain(monotonic() + NOW)
        slices += 1
        assert slices < 100
    assert [in_use(newest.customers, key) for key in (b"acme", b"globex", b"initech")] == [0, 0, 0]
    assert [quota(newest.quotas, key) for key in (b"acme", b"globex", b"initech")] == [11, 10, 10]


def test_no_file_is_removed_while_a_row_has_still_to_be_carried(supervise: Supervise, work: Work, state: Path) -> None:
    supervise(workers=1, offset=NOW)
    old = Store.join(state)
    supervisor = supervise(workers=2)
    new = work()
    period(old.quotas, b"acme", 10)
    old.close()
    assert new.quotas.file.lock()
    for _ in range(5):
        supervisor.maintain(monotonic() + NOW)
    assert tables(state, "customers") == ["customers.2.tbl"]
    assert tables(state, "quotas") == ["quotas.1.tbl", "quotas.2.tbl"]
    new.quotas.file.unlock()
    for _ in range(5):
        supervisor.maintain(monotonic() + NOW)
    assert tables(state, "quotas") == ["quotas.2.tbl"]
    assert quota(new.quotas) == 10


def test_the_only_copy_of_a_quota_is_on_the_disk(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(TableFile, "flush", lambda file: flushed.append((file.path.name, tables(state, "quotas"))))
    supervise(workers=1)
    supervisor = supervise(workers=2)
    for _ in range(5):
        supervisor.maintain(NOW)
    assert tables(state, "quotas") == ["quotas.2.tbl"]
    # The flush happened while the other file was still there.
    assert flushed == [("quotas.2.tbl", ["quotas.1.tbl", "quotas.2.tbl"])]


def test_limits_of_another_boot_are_removed_and_not_carried(supervise: Supervise, work: Work, state: Path) -> None:
    supervise()
    old = Store.join(state)
    count(old.customers, b"acme", 3)
    new = supervise(boot="two")
    new.maintain(NOW)
    assert tables(state, "customers") == ["customers.1.tbl", "customers.2.tbl"]
    old.close()
    new.maintain(NOW)
    assert tables(state, "customers") == ["customers.2.tbl"]
    assert tables(state, "addresses") == ["addresses.2.tbl"]
    assert foreign(new.customers, b"acme") is None


def test_a_full_disk_stops_folding_and_loses_nothing(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1)
    worker = Store.join(state)
    worker.billing.counter("acme", "requests", "v1").add(5)
    worker.close()
    supervisor = supervise(workers=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    for _ in range(3):
        with pytest.raises(OSError, match=r"base.json: cannot be made: No space left on device"):
            supervisor.maintain(NOW)
        assert list(supervisor.usage_totals()) == [("acme", "requests", "v1", 5)]
    monkeypatch.undo()
    for _ in range(5):
        supervisor.maintain(NOW)
    assert tables(state, "usage") == ["usage.2.tbl"]
    assert list(supervisor.usage_totals()) == [("acme", "requests", "v1", 5)]


def test_a_large_file_is_folded_by_the_piece(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1, customers=400)
    worker = Store.join(state)
    for number in range(300):
        worker.billing.counter(f"customer-{number}", "requests", "v1").add(1)
    worker.close()
    monkeypatch.setattr("edgeproxy.edge.counters.maintenance.RETIRE_SECONDS", 0.0)
    supervisor = supervise(workers=2, customers=400)
    slices = 1
    while "usage.1.tbl" not in supervisor.maintain(NOW).folded:
        slices += 1
        assert sum(total for *_, total in supervisor.usage_totals()) == 300
        assert slices < 100
    assert slices > 1
    assert sum(total for *_, total in supervisor.usage_totals()) == 300


def test_usage_is_folded_only_after_it_was_sealed(supervise: Supervise, state: Path) -> None:
    supervise(workers=1)
    old = Store.join(state)
    old.billing.counter("acme", "requests", "v1").add(5)
    old.close()
    new = supervise(workers=2)
    (state / "identity.json").write_text("{}")
    for _ in range(3):
        new.maintain(NOW)
    assert tables(state, "usage") == ["usage.1.tbl", "usage.2.tbl"]
    assert tables(state, "metrics") == ["metrics.2.tbl"]
    TallyTable(new.get_file("usage.1.tbl", "usage")).mark(0, 5)
    new.sealed.add("usage.1.tbl")
    assert new.maintain(NOW).folded == ("usage.1.tbl",)
    assert new.load_base().sealed == {b"acme\0requests\0v1": 5}


def test_a_flood_of_end_users_takes_no_row_of_a_customer(supervise: Supervise, work: Work) -> None:
    supervise(workers=1)
    store = work()
    use(store.customers, b"acme", 2)

    def flood() -> None:
        for number in range(store.end_users.layout.rows + 1):
            use(store.end_users, b"%d" % number, 1)

    with pytest.raises(TableFullError, match="end_users"):  # The index may fill up a few rows before the table.
        flood()
    assert in_use(store.customers) == 2
    use(store.customers, b"bolt", 1)
