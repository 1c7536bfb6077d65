import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from edgeproxy.base import clock
from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import store as store_module
from edgeproxy.edge.counters.base import Sums
from edgeproxy.edge.counters.columns import NoFreeColumnError
from edgeproxy.edge.counters.file import KINDS, TableError
from edgeproxy.edge.counters.index import TableBusyError
from edgeproxy.edge.counters.occupancy import Occupancy
from edgeproxy.edge.counters.store import MaintenanceResult, Store
from tests.edge.counters.conftest import Supervise

Work = Callable[[], Store]


def test_joining_an_unprepared_state_directory_fails(work: Work, state: Path) -> None:
    state.mkdir()
    with pytest.raises(TableError, match="control: cannot be opened"):
        work()


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="file: cannot be used: File exists"):
        Store.prepare(tmp_path / "file", workers=1, customers=5, addresses=5)


def test_claims_of_a_worker_that_starts_outlast_a_stopped_holder_of_the_flock(
    supervise: Supervise, state: Path
) -> None:
    supervisor = supervise()
    worker = Store.join(state)
    held = supervisor.usage.file
    assert held.lock()
    with pytest.raises(TableBusyError):
        worker.billing.counter("acme", "requests", "a")
    freed = threading.Timer(0.3, held.unlock)
    freed.start()
    with worker.starting():
        worker.billing.counter("acme", "requests", "a")
    freed.join()
    assert held.lock()
    with pytest.raises(TableBusyError):
        worker.billing.counter("acme", "requests", "b")
    held.unlock()


def test_ended_worker_releases_its_column(supervise: Supervise, work: Work, state: Path) -> None:
    supervisor = supervise()
    one = Store.join(state)
    work()
    assert columns.list_held_columns(supervisor.metrics.file) == {0, 1}
    one.close()
    assert columns.list_held_columns(supervisor.metrics.file) == {1}
    assert work().column == 0


def test_a_supervisor_knows_for_how_many_workers_there_is_room(supervise: Supervise, work: Work) -> None:
    supervisor = supervise(workers=2)
    assert supervisor.free_columns() == 4
    worker = work()
    assert supervisor.free_columns() == 3
    worker.close()
    assert supervisor.free_columns() == 4


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker waits for others to see it: nothing is counted here."""
    monkeypatch.setattr(store_module, "SEEN_BY_ALL_SECONDS", 0.0)


@pytest.mark.usefixtures("unseen")
def test_without_supervisors_as_many_workers_serve_on_as_one_has(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    workers = [work() for _ in range(4)]
    tokens = dict(zip(workers, (1, 1, 2, 2), strict=True))
    assert [worker.declare_orphan(tokens[worker], last=False) for worker in workers] == [True, True, False, False]
    # A worker that leaves makes room for one that is still there.
    assert workers[0].withdraw_orphan(1)
    assert [worker.declare_orphan(tokens[worker], last=False) for worker in workers[1:]] == [True, True, False]
    # Nobody but the others of its supervisor has the sockets of one that leaves.
    assert [worker.withdraw_orphan(tokens[worker]) for worker in workers[1:]] == [False, True, False]


@pytest.mark.usefixtures("unseen")
def test_workers_of_the_supervisor_that_served_last_serve_on_in_any_column(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    workers = [work() for _ in range(4)]
    last = [False, False, True, True]
    for _ in range(2):
        served = [worker.declare_orphan(1, last=one) for worker, one in zip(workers, last, strict=True)]
    assert served == [False, False, True, True]
    workers[3].close()
    served = [worker.declare_orphan(1, last=one) for worker, one in zip(workers[:3], last[:3], strict=True)]
    assert served == [True, False, True]


def test_workers_that_start_one_after_another_do_not_wait_for_each_other_in_vain(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEEN_BY_ALL_SECONDS", 5.0)
    supervisor = supervise(workers=2)
    serving = [work(), work()]
    new: list[Store] = []
    starting = [threading.Thread(target=lambda: new.append(work())) for _ in range(2)]
    began = monotonic()
    # The first one that starts waits for the serving ones in the second table when the next one enters the first.
    for start, tables in zip(starting, (["customers"], list(supervisor.limits)), strict=True):
        start.start()
        until = monotonic() + 0.2
        while monotonic() < until:
            for worker in serving:
                for table in tables:
                    worker.limits[table].refresh_columns()
            sleep(0.001)
    while any(start.is_alive() for start in starting):
        for worker in (*serving, *new):
            worker.refresh_columns()
        sleep(0.001)
    assert monotonic() - began < 3
    for worker in (*serving, *new):
        worker.refresh_columns()
        assert all(table.active_columns() == {0, 1, 2, 3} for table in worker.limits.values())
    for start in starting:
        start.join()


def test_a_worker_that_cannot_join_keeps_nothing_open(supervise: Supervise, work: Work) -> None:
    supervise(workers=1)
    work(), work()
    gc.collect()  # Files that earlier tests left open would be closed at any later moment.
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NoFreeColumnError):
        work()
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_table_is_an_error_that_names_it(supervise: Supervise, work: Work, state: Path) -> None:
    supervise()
    (state / "usage.1.tbl").unlink()
    with pytest.raises(TableError, match=r"usage.1.tbl: cannot be opened"):
        work()


# ---- the clock


def test_clock_offset_is_stable_within_a_boot_and_renewed_after_it(supervise: Supervise, work: Work) -> None:
    assert supervise(offset=5e7).offset == 5e7
    assert supervise(offset=6e7).offset == 5e7
    assert work().offset == 5e7
    assert supervise(boot="two", offset=6e7).offset == 6e7


def test_a_wall_clock_before_2025_gives_edge_time_from_the_boot_on(supervise: Supervise) -> None:
    assert supervise(offset=-1.5e9).offset == 0.0


class Clocked:
    """A reader that records the edge times of its scheduled continuations."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def invalidate(self) -> None:
        pass

    def recover_clock(self, now: float) -> None:
        self.times.append(now)


def test_limits_continue_at_the_present_edge_time_once_the_clock_was_set_back(supervise: Supervise, work: Work) -> None:
    supervisor, worker = supervise(), work()
    readers = {table: Clocked() for table in (worker.customers, worker.addresses, worker.quotas)}
    for table, reader in readers.items():
        table.readers[b"acme"] = reader
    supervisor.control.write_offset(supervisor.offset - 3600)
    before = monotonic() + worker.offset
    worker.recover_clock()
    assert all(len(reader.times) == 1 and before <= reader.times[0] < before + 60 for reader in readers.values())


def test_store_reads_its_clock_offset_from_the_kernel(state: Path, stores: list[Store]) -> None:
    stores.append(Store.prepare(state, workers=1, customers=5, addresses=5))
    assert stores[0].offset == pytest.approx(clock.wall_offset(), abs=5)
    stores.append(Store.prepare(state, workers=1, customers=5, addresses=5, offset=1.0))
    assert stores[0].offset == stores[1].offset


# ---- who reads which column


@pytest.mark.parametrize("has_predecessor", [False, True])
def test_worker_on_a_spare_column_waits_for_other_workers(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch, has_predecessor: bool
) -> None:
    supervise()
    first, second = work(), work()
    if has_predecessor:  # It was killed while it waited.
        with monkeypatch.context() as patches:
            patches.setattr(store_module, "SEEN_BY_ALL_SECONDS", 0.0)
            work().close()
    joined: list[Store] = []
    thread = threading.Thread(target=lambda: joined.append(work()))
    thread.start()
    deadline = monotonic() + 10
    while thread.is_alive():
        assert monotonic() < deadline
        assert not joined
        first.refresh_columns()
        second.refresh_columns()
        thread.join(0.001)
    assert joined[0].column == 2
    for worker in (first, second):
        for table in (worker.customers, worker.addresses, worker.quotas):
            assert table.layout.ring_at(2) in table.siblings_at
    assert not first.refresh_columns()


def test_a_shared_bound_forgets_a_worker_that_has_died(supervise: Supervise, work: Work) -> None:
    supervise()
    alive, dying = work(), work()
    gauges = [store.meters.shared_gauge("edge_upstream_pending", "api") for store in (alive, dying)]
    gauges[1].add(3)
    assert gauges[0].total() == 3
    dying.close()
    alive.refresh_columns()
    assert gauges[0].total() == 0
    assert work().column == 1
    assert gauges[0].claim(1)


def test_a_dead_workers_words_do_not_count_while_another_takes_its_column(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise()
    one, other = work(), work()
    assert other.connected.claim(b"address", 1)
    other.close()
    seen = []
    clear = Occupancy._clear

    def clear_later(successor: Occupancy) -> None:
        one.refresh_columns()
        seen.append(one.connected.claim(b"address", 1))
        clear(successor)

    monkeypatch.setattr(Occupancy, "_clear", clear_later)
    assert work().column == 1
    assert seen == [True]


def test_join_stops_waiting_for_a_hung_worker(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEEN_BY_ALL_SECONDS", 0.05)
    supervise(workers=1)
    hung = work()
    assert work().column == 1
    assert hung.refresh_columns()


def test_a_table_that_a_hung_process_keeps_locked_is_an_error(
    supervise: Supervise, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEEN_BY_ALL_SECONDS", 0.05)
    supervisor = supervise()
    assert supervisor.customers.file.lock()
    with pytest.raises(TableError, match=r"customers.1.tbl: is kept locked by a process that hangs"):
        work()
    supervisor.customers.file.unlock()


# ---- totals


def test_totals_are_summed_over_workers_dead_and_alive(supervise: Supervise, work: Work, state: Path) -> None:
    supervisor = supervise()
    one = Store.join(state)
    two = work()
    for worker in (one, two):
        worker.billing.counter("acme", "requests", "v1").add(2)
        worker.billing.counter("acme", "requests", "example.com/x/*").add(1)
        worker.meters.counter("edge_requests_total", "v1", "basic", "200").add(5)
        worker.meters.gauge("edge_connections", "client").set(7)
        worker.meters.histogram("edge_overhead_seconds").observe(0.00015)
        worker.meters.settle()
    one.close()
    assert sorted(supervisor.usage_totals()) == [
        ("acme", "requests", "example.com/x/*", 2),
        ("acme", "requests", "v1", 4),
    ]
    totals = {(name, labels): words for name, labels, words in supervisor.metric_totals()}
    assert totals[("edge_requests_total", ("v1", "basic", "200"))] == [10]
    assert totals[("edge_connections", ("client",))] == [7]
    seconds = totals[("edge_overhead_seconds", ())]
    assert seconds == [0, 2] + [0] * (len(LATENCY_BUCKETS) - 1) + [300_000]


def usage(store: Store) -> int:
    return sum(total for *_, total in store.usage_totals())


def tend_until(store: Store, done: Callable[[MaintenanceResult], bool], now: float = 5e7) -> MaintenanceResult:
    """Slices until `done`; a slice is enough for little, but not by promise."""
    for _ in range(20):
        tended = store.maintain(now)
        if done(tended):
            return tended
    raise AssertionError("maintenance never got there")


def test_totals_outlive_their_files(supervise: Supervise, work: Work, state: Path) -> None:
    supervise(workers=1)
    old = Store.join(state)
    old.billing.counter("acme", "requests", "v1").add(5)
    old.meters.histogram("edge_overhead_seconds").observe(1.0)
    old.meters.settle()
    old.meters.gauge("edge_connections", "client").set(3)
    supervisor = supervise(workers=2)
    new = work()
    new.billing.counter("acme", "requests", "v1").add(7)
    new.meters.gauge("edge_connections", "client").set(4)
    old.billing.counter("acme", "requests", "v1").add(1)
    # While a worker counts in the old file it stays.
    assert supervisor.maintain(5e7).folded == ()
    assert usage(supervisor) == 13
    assert {name: words[0] for name, _, words in supervisor.metric_totals()}["edge_connections"] == 7
    old.close()
    tend_until(supervisor, lambda _: len(list(state.glob("*.tbl"))) == len(KINDS))
    assert not list(state.glob("*.1.tbl"))
    assert usage(supervisor) == 13
    totals = {name: words for name, _, words in supervisor.metric_totals()}
    assert totals["edge_connections"] == [4]
    assert sum(totals["edge_overhead_seconds"][:-1]) == 1
    assert usage(supervise(workers=3)) == 13


class CutOff(BaseException):
    """The supervisor is killed here."""


@pytest.mark.parametrize("call", range(1, 16))
def test_kill_during_folding_counts_usage_once(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    supervise(workers=1)
    worker = Store.join(state)
    worker.billing.counter("acme", "requests", "v1").add(5)
    worker.close()
    dying = supervise(workers=2)
    calls = 0

    def cut_off_before(real: Callable[..., object]) -> Callable[..., object]:
        def maybe(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                raise CutOff
            return real(*arguments, **options)

        return maybe

    for owner, name in ((os, "replace"), (os, "fsync"), (os, "posix_fallocate"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, cut_off_before(getattr(owner, name)))
    with pytest.raises(CutOff):
        tend_until(dying, lambda _: False)
    monkeypatch.undo()
    dying.identity.release()
    survivor = supervise(workers=2)
    assert usage(survivor) == 5
    for _ in range(5):
        survivor.maintain(5e7)
    assert len(list(state.glob("*.tbl"))) == len(KINDS)
    assert usage(survivor) == usage(supervise(workers=2)) == 5


def test_totals_read_while_another_supervisor_folds_are_right(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1)
    worker = Store.join(state)
    worker.billing.counter("acme", "requests", "v1").add(5)
    worker.close()
    reader, holder = supervise(workers=2), supervise(workers=2)
    add_file = reader.add_file

    def meanwhile(sums: Sums, name: str, kind: str) -> None:
        tend_until(holder, lambda _: not (state / "usage.1.tbl").exists())
        add_file(sums, name, kind)

    monkeypatch.setattr(reader, "add_file", meanwhile)
    reader.close_file("usage.1.tbl")
    assert usage(reader) == 5


def test_a_table_that_is_damaged_is_not_passed_over(supervise: Supervise, state: Path) -> None:
    supervise(workers=1)
    reader = supervise(workers=2)
    os.truncate(state / "usage.1.tbl", 4096)
    with pytest.raises(TableError, match=r"usage.1.tbl: is 4096 bytes long"):
        usage(reader)


# ---- two supervisors


def test_only_one_supervisor_maintains_the_tables(supervise: Supervise) -> None:
    one, two = supervise(), supervise()
    assert one.maintain(5e7).holder
    assert two.maintain(5e7) == MaintenanceResult(holder=False)
    one.close()
    assert two.maintain(5e7).holder


def test_a_supervisor_sees_the_tables_that_another_has_made(supervise: Supervise) -> None:
    one = supervise(workers=1)
    first = one.customers
    one.maintain(5e7)
    assert one.customers is first
    supervise(workers=2)
    one.maintain(5e7)
    assert one.customers.layout.columns == 4
    assert one.usage.layout.columns == 4
