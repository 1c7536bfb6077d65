import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.base import Base
from edgeproxy.edge.counters.cells import cell_number, pack
from edgeproxy.edge.counters.columns import acquire_column
from edgeproxy.edge.counters.control import Control, boot_digest
from edgeproxy.edge.counters.file import KINDS, TableError, TableFile
from edgeproxy.edge.counters.index import ROWS_MAX
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import (
    NEARLY_FULL_FRACTION,
    file_name,
    layouts,
    list_generations,
    prepare_control,
    prepare_tables,
)
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import COUNTER, TallyTable
from edgeproxy.edge.counters.usage_key import usage_key
from tests.edge.counters.conftest import Supervise
from tests.support.tables import WIDTH, claim, count_as_formerly, list_foreign_counts

FIRST = [
    f"{kind}.1.tbl" for kind in ("addresses", "connections", "customers", "end_users", "metrics", "quotas", "usage")
]


def tables(state: Path) -> list[str]:
    return sorted(path.name for path in state.glob("*.tbl*"))


def numbers(store: Store) -> list[int]:
    return [store.control.generation(kind) for kind in ("customers", "addresses", "quotas", "usage", "metrics")]


def test_changed_layout_creates_only_the_files_that_it_affects(supervise: Supervise, state: Path) -> None:
    supervise()
    assert numbers(supervise(addresses=30)) == [1, 2, 1, 1, 1]
    assert numbers(supervise(workers=3, addresses=30)) == [2, 3, 2, 2, 2]
    assert numbers(supervise(workers=3, addresses=30, customers=50)) == [3, 3, 3, 3, 2]
    assert "addresses.1.tbl" in tables(state)


def test_quota_counts_survive_a_boot_and_rate_counts_do_not(supervise: Supervise) -> None:
    before = supervise()
    for table in (before.customers, before.quotas):
        row = claim(table, b"acme")
        table.words[row + table.layout.head(1) + at.CUM] = 7
    after = supervise(boot="two")
    assert after.customers.peek(after.customers.make_key(b"acme")) is None
    row = claim(after.quotas, b"acme")
    assert after.quotas.words[row + after.quotas.layout.head(1) + at.CUM] == 7
    assert after.quotas.rows_in_use == 1


def test_a_boot_with_another_number_of_workers_carries_quotas_over(supervise: Supervise) -> None:
    before = supervise()
    row = claim(before.quotas, b"acme")
    head = row + before.quotas.layout.head(1)
    before.quotas.words[head + at.CUM], before.quotas.words[head + at.PERIOD] = 7, 24_306
    before.quotas.words[head + at.UNTIL] = 1 << 40
    claim(before.customers, b"acme")
    after = supervise(workers=3, boot="two")
    assert numbers(after) == [2, 2, 2, 2, 2]
    head = claim(after.quotas, b"acme") + after.quotas.layout.head(-1)
    assert after.quotas.words[head : head + at.HEAD_WORDS].tolist() == [7, 24_306, 0, 1 << 40, 0, 0, 0]
    assert after.customers.rows_in_use == 0


def former_release(state: Path, boot: str = "one") -> None:
    """Create the state directory of an older release, with shorter heads, whole keys of usage, and without quotas."""
    state.mkdir(mode=0o700)
    control = prepare_control(state / "control", state)
    control.begin_boot(boot_digest(boot), 5e7)
    former = [layout._replace(parts=0) for layout in layouts(2, 40, 20)]
    customers, addresses, _, *tallies, _ = former
    wanted = (customers._replace(width=0), addresses._replace(width=0), *tallies)
    prepare_tables(state, control, wanted, Base(), 5e7)
    control.close()


def former_worker(state: Path, kind: str) -> LimitTable:
    """A worker of that release, as far as it counts in a table."""
    file = former_file(state, kind)
    acquire_column([file])
    return LimitTable(file)


def former_file(state: Path, kind: str) -> TableFile:
    control = Control.open(state / "control")
    file = TableFile.open(state / file_name(kind, 1), kind=kind, instance=control.instance)
    control.close()
    return file


def counted_elsewhere(table: LimitTable, key: bytes) -> dict[int, int]:
    row = table.peek(table.make_key(key))
    assert row is not None
    return list_foreign_counts(table, row)


def test_counts_move_to_the_file_of_another_number_of_workers(
    supervise: Supervise, work: Callable[[], Store], state: Path
) -> None:
    def count(table: LimitTable, key: bytes, cell: int, number: int) -> None:
        row = claim(table, key)
        table.words[table.rings_of(row) + table.own_at + cell % 32] = pack(cell, number)

    supervise()
    again = supervise()
    assert numbers(again) == [1, 1, 1, 1, 1]
    cell = cell_number(monotonic() + again.offset, WIDTH)
    worker = work()
    count(worker.customers, b"acme", cell, 3)
    assert again.customers.counts(claim(again.customers, b"acme"), cell) == {cell: 3}
    later = supervise(workers=3)
    assert {"customers.1.tbl", "customers.2.tbl"} <= set(tables(state))
    assert counted_elsewhere(later.customers, b"acme") == {cell: 3}
    again.close()
    worker.close()
    for _ in range(3):
        later.maintain(monotonic() + later.offset)
    assert "customers.1.tbl" not in tables(state)
    assert counted_elsewhere(later.customers, b"acme") == {cell: 3}


def test_the_state_of_the_former_release_is_taken_over(supervise: Supervise, state: Path) -> None:
    former_release(state)
    assert tables(state) == ["addresses.1.tbl", "connections.1.tbl", "customers.1.tbl", "metrics.1.tbl", "usage.1.tbl"]
    customers, addresses = (former_worker(state, kind) for kind in ("customers", "addresses"))
    cell = cell_number(monotonic() + 5e7, WIDTH)
    count_as_formerly(customers, b"acme", 0, cell, 3)
    count_as_formerly(customers, b"acme", 2, cell - 1, 4)
    count_as_formerly(addresses, b"192.0.2.1", 0, cell, 5)
    usage = TallyTable(former_file(state, "usage"), 0)
    usage.words[usage.own(usage_key(("acme", "requests", "r" * 80, "")), COUNTER)] = 6
    store = supervise()
    assert numbers(store) == [2, 2, 1, 2, 1]
    assert counted_elsewhere(store.customers, b"acme") == {cell: 3, cell - 1: 4}
    assert counted_elsewhere(store.addresses, b"192.0.2.1") == {cell: 5}
    # The former release's worker counts on for a while.
    count_as_formerly(customers, b"acme", 0, cell, 8)
    store.maintain(monotonic() + store.offset)
    assert counted_elsewhere(store.customers, b"acme") == {cell: 8, cell - 1: 4}
    assert "customers.1.tbl" in tables(state)
    assert [*store.usage_totals()] == [("acme", "requests", "r" * 80, 6)]
    for table in (customers, addresses, usage):
        table.file.close()
    for _ in range(3):
        store.maintain(monotonic() + store.offset)
    changed = ("customers", "addresses", "usage")
    assert tables(state) == sorted(name.replace("1", "2") if name.startswith(changed) else name for name in FIRST)
    assert [*store.usage_totals()] == [("acme", "requests", "r" * 80, 6)]
    assert counted_elsewhere(store.customers, b"acme") == {cell: 8, cell - 1: 4}


def test_rates_of_the_former_release_and_another_boot_are_forgotten(supervise: Supervise, state: Path) -> None:
    former_release(state)
    customers = former_worker(state, "customers")
    count_as_formerly(customers, b"acme", 0, cell_number(monotonic() + 5e7, WIDTH), 3)
    customers.file.close()
    store = supervise(boot="two")
    assert numbers(store) == [2, 2, 1, 2, 1]
    store.maintain(monotonic() + store.offset)
    assert store.customers.rows_in_use == 0
    assert not {"customers.1.tbl", "addresses.1.tbl"} & set(tables(state))


def test_control_file_is_flushed_after_all_generations_are_published(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[list[int]] = []

    def flush(control: Control) -> None:
        flushed.append([control.generation(kind) for kind in KINDS])

    monkeypatch.setattr(Control, "flush", flush)
    supervise()
    assert flushed == [[1] * len(KINDS)]


def test_a_file_that_was_removed_is_made_again_under_a_new_name(supervise: Supervise, state: Path) -> None:
    supervise()
    (state / "customers.1.tbl").unlink()
    assert numbers(supervise()) == [2, 1, 1, 1, 1]


def test_no_name_that_was_folded_is_used_again(supervise: Supervise, state: Path) -> None:
    state.mkdir()
    Base().fold("usage.7.tbl", "usage", {}, present=frozenset()).write(state / "base.json")
    assert numbers(supervise()) == [1, 1, 1, 8, 1]


def test_tables_without_a_control_file_are_refused(supervise: Supervise, state: Path) -> None:
    supervise()
    (state / "control").unlink()
    with pytest.raises(TableError, match="control: is missing, and there are tables in"):
        supervise()
    assert tables(state) == FIRST


def test_the_tables_of_another_state_are_refused(supervise: Supervise, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    Store.prepare(tmp_path / "one", workers=1, customers=5, addresses=5, tables_dir=shared).close()
    with pytest.raises(TableError, match="control: is missing, and there are tables in"):
        Store.prepare(tmp_path / "two", workers=1, customers=5, addresses=5, tables_dir=shared)
    Store.prepare(tmp_path / "two", workers=1, customers=5, addresses=5).close()
    with pytest.raises(TableError, match=r"customers.1.tbl: belongs to another state directory"):
        Store.prepare(tmp_path / "two", workers=1, customers=5, addresses=5, tables_dir=shared)


def test_setup_removes_files_of_an_interrupted_setup(supervise: Supervise, state: Path) -> None:
    supervise()
    os.link(state / "customers.1.tbl", state / "customers.2.tbl")
    (state / "usage.2.tbl.123.tmp").write_bytes(b"half")
    (state / "customers.notes.tbl").write_bytes(b"somebody's")
    assert numbers(supervise()) == [1, 1, 1, 1, 1]
    assert tables(state) == sorted([*FIRST, "customers.notes.tbl"])


def test_setup_creates_no_table_if_one_fails(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1)
    allocate = os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if "usage" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TableError, match=r"usage.2.tbl: cannot be made: No space left on device \(0 MiB are needed\)"):
        supervise(workers=2)
    assert tables(state) == FIRST
    monkeypatch.undo()
    assert numbers(supervise(workers=1)) == [1, 1, 1, 1, 1]
    assert numbers(supervise(workers=2)) == [2, 2, 2, 2, 2]


def test_setup_leaves_no_new_tables_if_limits_cannot_be_carried(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("edgeproxy.edge.counters.carry.Carry.slice", fail)
    with pytest.raises(OSError, match="Input/output error"):
        supervise(workers=2)
    assert tables(state) == FIRST


def test_more_rows_than_can_be_numbered_are_refused(supervise: Supervise, state: Path) -> None:
    with pytest.raises(TableError, match=f"{ROWS_MAX + 1} rows are too many for customers: {ROWS_MAX} is the most"):
        supervise(customers=ROWS_MAX + 1)
    assert tables(state) == []


def test_a_nearly_full_file_of_usage_is_followed_by_an_empty_one(supervise: Supervise, work: object) -> None:
    supervise(customers=10)
    assert callable(work)
    worker = work()
    kept = [worker.billing.counter(f"customer-{number}", "requests", "v1") for number in range(8)]
    for counter in kept:
        counter.add(3)
    assert len(kept) >= NEARLY_FULL_FRACTION * 10
    store = supervise(customers=10)
    assert numbers(store) == [1, 1, 1, 2, 1]
    assert sum(total for *_, total in store.usage_totals()) == 24


def test_files_are_known_by_their_numbers(tmp_path: Path) -> None:
    for name in ("customers.2.tbl", "customers.3.tbl", "customers.10.tbl", "customers.x.tbl", "usage.1.tbl"):
        (tmp_path / name).touch()
    for name in ("customers.4.tbl.1.tmp", "customers.tbl"):
        (tmp_path / name).touch()
    assert list_generations(tmp_path, "customers") == [2, 3, 10]
    assert file_name("customers", 10) == "customers.10.tbl"
