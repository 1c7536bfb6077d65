"""Sealing counts into batches: the rows, their time span, and the tables' files."""

import errno
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.base import Base
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import tally_key
from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.seal import Sealer, seconds_until_seal
from edgeproxy.edge.usage.segment import Disk
from edgeproxy.edge.usage.spool import BrokenSpoolError, list_segments
from edgeproxy.wire.batch import Batch
from loadtest.testbed.sealing import NOW, Faulty, batches, count, name, prepare, sums, totals

ACME = ("acme", "requests", "v1")
MINUTE = NOW - NOW % 60


class Edge:
    """A state directory, a supervisor that seals it, and a worker."""

    def __init__(self, state: Path, stores: list[Store]) -> None:
        self.state = state
        self.stores = stores
        self.disk = Faulty()
        self.supervise()
        self.worker = self.join()

    def supervise(self, customers: int = 40, boot: str = "one") -> None:
        self.store = prepare(self.state, customers=customers, boot=boot)
        self.stores.append(self.store)

    def join(self) -> Store:
        worker = Store.join(self.state)
        self.stores.append(worker)
        return worker

    def open(self, now: float = MINUTE) -> None:
        self.sealer = Sealer.open(self.store, "here", now, disk=self.disk)

    def again(self, now: float, customers: int = 40) -> None:
        """Let the supervisor die and start a new one."""
        self.sealer.close()
        self.store.close()
        self.supervise(customers)
        self.open(now)

    @property
    def last(self) -> Batch:
        return batches(self.state / "spool")[-1]

    def span(self) -> tuple[float, float, bool]:
        """Return the start and the end of the last batch in seconds from MINUTE, and whether it is flagged as long."""
        return self.last.since - MINUTE, self.last.until - MINUTE, self.last.long

    def assert_sealed(self) -> None:
        assert sums(self.state / "spool") == totals(self.store)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    stores: list[Store] = []
    yield Edge(tmp_path / "state", stores)
    for store in stores:
        store.close()


def test_only_new_counts_are_sealed_and_each_once(edge: Edge) -> None:
    edge.open()
    assert edge.sealer.seal(MINUTE + 1) == (0, 0, ())
    count(edge.worker, ACME, 3)
    count(edge.worker, name(1), 2)
    assert edge.sealer.seal(MINUTE + 5) == (1, 2, ())
    count(edge.worker, ACME, 1)
    count(edge.join(), ACME, 1)
    assert edge.sealer.seal(MINUTE + 10) == (1, 1, ())
    assert edge.last.rows == ((*ACME, 2),)
    assert edge.sealer.seal(MINUTE + 15) == (0, 0, ())
    assert (edge.last.edge, edge.last.region, edge.last.seq) == (edge.sealer.identity.id, "here", 2)
    edge.assert_sealed()


def test_a_batch_spans_the_time_of_its_counts(edge: Edge) -> None:
    edge.open()
    for now in (5, 10.9, 55):
        count(edge.worker, ACME)
        edge.sealer.seal(MINUTE + now)
    assert edge.span() == (10, 55, False)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 60.9)
    assert edge.span() == (55, 60, False)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 61)
    assert edge.span() == (60, 61, False)
    # After an hour without counts, the next batch spans only the last interval.
    for now in range(65, 3600, 5):
        edge.sealer.seal(MINUTE + now)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 3600)
    assert edge.span() == (3595, 3600, False)


def test_without_new_counts_an_empty_batch_is_sealed_each_minute(edge: Edge) -> None:
    edge.open()
    first = edge.sealer.identity.made_at
    assert edge.sealer.seal(first + 59) == (0, 0, ())
    assert edge.sealer.seal(first + 60) == (1, 0, ())
    # The first batch covers the counts before the spool existed. There were none.
    assert (edge.last.seq, edge.last.rows, edge.last.since) == (1, (), first + 59)
    assert edge.sealer.seal(first + 119) == (0, 0, ())
    edge.again(first + 119)
    assert edge.sealer.seal(first + 120) == (1, 0, ())
    assert not edge.last.long
    count(edge.worker, ACME)
    assert edge.sealer.seal(first + 130) == (1, 1, ())
    assert edge.sealer.seal(first + 185) == (0, 0, ())
    # No supervisor ran for a time.
    edge.again(first + 900)
    assert edge.sealer.seal(first + 900) == (1, 0, ())
    assert (edge.last.since, edge.last.until, edge.last.long) == (first + 185, first + 900, True)
    # After the clock was set back, no batch is sealed until it has caught up.
    assert edge.sealer.seal(first).batches == 0
    edge.assert_sealed()


def test_the_first_batch_after_a_pause_is_flagged_as_long(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 5)
    edge.sealer.seal(MINUTE + 30)
    edge.again(MINUTE + 200)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 205)
    assert edge.span() == (30, 205, True)
    edge.again(MINUTE + 210)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 215)
    assert edge.span() == (205, 215, False)


def test_after_the_clock_is_set_back_batch_times_stand_still(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 40)
    count(edge.worker, ACME)
    assert edge.sealer.seal(MINUTE - 10).faults == ()
    assert edge.span() == (40, 40, False)
    edge.again(MINUTE - 9)
    count(edge.worker, ACME)
    (fault,) = edge.sealer.seal(MINUTE - 3600).faults
    assert fault.startswith("the clock is 3640 s behind the last batch")
    assert edge.span() == (40, 40, False)
    count(edge.worker, ACME)
    assert edge.sealer.seal(MINUTE + 41).faults == ()
    assert edge.span() == (40, 41, False)


def test_a_failed_seal_before_a_clock_step_does_not_move_times_back(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.edge.usage.seal.ROWS_MAX", 2)
    edge.open()
    for number in range(4):
        count(edge.worker, name(number))
    edge.disk.acts, edge.disk.way = 5, "full"
    with pytest.raises(OSError, match="No space"):
        edge.sealer.seal(MINUTE + 10)
    assert len(batches(edge.state / "spool")) == 1
    edge.sealer.seal(MINUTE + 3)
    assert edge.span() == (0, 10, True)
    edge.assert_sealed()


@pytest.mark.parametrize(
    ("now", "every", "seconds"), [(0, 5, 5), (51, 5, 5), (57, 5, 3.001), (59.5, 5, 0.501), (60, 90, 60.001)]
)
def test_the_next_seal_is_after_the_interval_or_at_the_minute(now: float, every: float, seconds: float) -> None:
    assert seconds_until_seal(MINUTE + now, every) == pytest.approx(seconds, abs=1e-6)


def test_counts_from_before_the_spool_are_sealed_once(edge: Edge) -> None:
    """The first batch has the sums of removed files, of an old file still in use, and of the current one."""
    for customers in (45, 50):
        count(edge.worker, ACME, 7)
        count(edge.worker, name(customers))
        edge.store.close()
        edge.worker.close()
        edge.supervise(customers)
        edge.worker = edge.join()
        edge.store.maintain(5e7)
    count(edge.worker, ACME, 100)
    old = edge.worker
    edge.store.close()
    edge.supervise(60)
    count(edge.join(), ACME, 1000)
    assert edge.store.load_base().tables["usage"][tally_key(*ACME)][1] == [14]
    edge.open()
    assert edge.sealer.seal(MINUTE + 1) == (1, 3, ())
    assert edge.last.long
    assert Counter({row[:3]: row[3] for row in edge.last.rows})[ACME] == 1114
    count(old, ACME, 1)
    count(old, name(1), 1)
    edge.sealer.seal(MINUTE + 2)
    edge.again(MINUTE + 3, customers=60)
    edge.sealer.seal(MINUTE + 4)
    assert len(batches(edge.state / "spool")) == 2
    edge.assert_sealed()
    assert edge.store.load_base().sealed == {tally_key(*ACME): 14, tally_key(*name(45)): 1, tally_key(*name(50)): 1}


def test_counts_are_not_sealed_twice_after_a_failed_base_write(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    count(edge.worker, ACME, 7)
    edge.store.close()
    edge.worker.close()
    edge.supervise(45)
    edge.worker = edge.join()
    edge.store.maintain(5e7)
    edge.open()

    def full(base: Base, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Base, "write", full)
        for second in (1, 2):
            with pytest.raises(OSError, match="No space left"):
                edge.sealer.seal(MINUTE + second)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 3)
    assert [batch.rows for batch in batches(edge.state / "spool")] == [((*ACME, 7),), ((*ACME, 1),)]
    edge.assert_sealed()


def usage_files(edge: Edge) -> list[str]:
    return sorted(path.name for path in edge.state.glob("usage.*.tbl"))


def test_without_a_sealer_old_files_are_kept(edge: Edge) -> None:
    edge.open()
    edge.sealer.close()
    edge.store.close()
    edge.worker.close()
    edge.supervise(customers=50)
    edge.store.maintain(5e7)
    assert usage_files(edge) == ["usage.1.tbl", "usage.2.tbl"]


def test_a_file_with_a_counting_worker_is_not_closed(edge: Edge) -> None:
    edge.open()
    edge.again(MINUTE, customers=50)
    edge.sealer.seal(MINUTE + 1)
    assert edge.store.sealed == set()
    count(edge.worker, ACME, 5)
    edge.worker.close()
    edge.sealer.seal(MINUTE + 2)
    assert edge.store.sealed == {"usage.1.tbl"}
    edge.store.maintain(5e7)
    edge.assert_sealed()


def test_two_supervisors_seal_one_after_the_other(edge: Edge) -> None:
    edge.open()
    second = prepare(edge.state, customers=50)
    edge.stores.append(second)
    with pytest.raises(ValueError, match="only who holds the identity lock"):
        Sealer.open(second, "here", MINUTE)
    count(edge.worker, ACME, 1)
    count(edge.join(), ACME, 2)
    edge.sealer.seal(MINUTE + 1)
    assert edge.last.rows == ((*ACME, 3),)
    count(edge.worker, ACME, 4)
    edge.sealer.close()
    edge.store.close()
    with pytest.raises(ValueError, match="only who holds the identity lock"):
        edge.sealer.find_growth(MINUTE)
    assert second.identity.try_acquire()
    edge.store = second
    edge.open(MINUTE + 2)
    edge.sealer.seal(MINUTE + 3)
    edge.assert_sealed()


def test_an_invalid_row_is_reported_and_the_others_are_sealed(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 1)
    for bad in ((" ", "requests", "v1"), ("acme", "-", "v1"), ("acme", "requests", "a b"), ("acme", "requests", "")):
        count(edge.worker, bad, 3)
    edge.worker.usage.words[edge.worker.usage.own(b"only\0two", 1)] = 1
    edge.worker.usage.words[edge.worker.usage.own(b"\xff\0a\0b", 1)] = 1
    count(edge.worker, name(3), 1 << 63)
    done = edge.sealer.seal(MINUTE + 1)
    assert (done.batches, done.rows, len(done.faults)) == (1, 1, 7)
    assert all(fault.endswith("is no row of a batch, and is not sealed") for fault in done.faults)
    assert edge.last.rows == ((*ACME, 1),)


def test_a_row_below_its_sealed_count_is_reported(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    edge.worker.usage.words[edge.worker.usage.own(tally_key(*ACME), 1)] = 3
    assert edge.sealer.seal(MINUTE + 2).faults == ("row 0 of file 1 has 3, and 5 was sealed",)


def test_damaged_spool_is_quarantined_and_sealing_uses_a_new_identity(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    before = edge.sealer.identity
    (path,) = list_segments(edge.state / "spool")
    content = bytearray(path.read_bytes())
    content[60] ^= 4
    path.write_bytes(content)
    count(edge.worker, ACME, 2)
    edge.again(MINUTE + 2)
    assert edge.sealer.aside == edge.state / "aside.1"
    assert identity.load_identity(edge.state / "aside.1") == before
    assert (edge.state / "aside.1" / "spool" / path.name).read_bytes() == content
    edge.sealer.seal(MINUTE + 3)
    assert edge.last.edge == edge.sealer.identity.id != before.id
    # Counts sealed under the old identity are not sealed again.
    assert (edge.last.seq, edge.last.rows) == (1, ((*ACME, 2),))
    edge.again(MINUTE + 4)
    assert edge.sealer.aside is None


def test_a_spool_without_its_identity_is_refused(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    (edge.state / "identity.json").rename(edge.state / "elsewhere")
    with pytest.raises(BrokenSpoolError, match=r"identity\.json is missing: put it back"):
        edge.again(MINUTE + 2)


def test_a_removed_table_file_is_skipped(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    edge.again(MINUTE + 2, customers=50)
    edge.store.get_file("usage.1.tbl", "usage")
    edge.store.close_file("usage.1.tbl")
    generations = edge.store.list_generations("usage")
    edge.store.list_generations = lambda kind: generations  # type: ignore[method-assign]
    os.unlink(edge.state / "usage.1.tbl")
    count(edge.join(), ACME, 1)
    assert edge.sealer.seal(MINUTE + 3).rows == 1
    shutil.copy(edge.state / "usage.2.tbl", edge.state / "usage.1.tbl")
    os.truncate(edge.state / "usage.1.tbl", 10)
    with pytest.raises(TableError, match="too short"):
        edge.sealer.find_growth(MINUTE + 4)


def test_lost_counts_that_cannot_be_restored_are_reported(edge: Edge) -> None:
    """This happens after a loss of power, if workers hold all columns before the supervisor restores the counts."""
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    edge.worker.usage.words[edge.worker.usage.own(tally_key(*ACME), 1)] = 2
    others = [edge.join() for _ in range(3)]
    with pytest.raises(TableError, match="lack what was sealed, and it cannot be put back: all 4 columns"):
        edge.again(MINUTE + 2)
    others[0].close()
    edge.again(MINUTE + 2)
    assert totals(edge.store) == {ACME: 5}
    assert edge.sealer.seal(MINUTE + 3) == (0, 0, ())


def test_a_name_with_two_rows_after_a_loss_of_power_regains_both_counts(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 5)
    table, key = edge.store.usage, tally_key(*ACME)
    # The disk has the row, but not the page of the index that leads to it.
    table.index.remove(table.index.hash(key), 0)
    count(edge.worker, ACME)
    edge.sealer.seal(MINUTE + 10)
    assert [(key, mark) for key, mark in table.marks()] == [(key, 1), (key, 1)]
    # After the next loss of power, the new row and its index entry are missing too.
    table.index.remove(table.index.hash(key), 1)
    start = table.layout.first_row + table.layout.row_words
    table.words[start : start + table.layout.row_words] = memoryview(bytes(8 * table.layout.row_words)).cast("Q")
    table.words[at.HIGH] = 1
    edge.again(MINUTE + 15)
    assert totals(edge.store) == {ACME: 2}
    assert sums(edge.state / "spool") == {ACME: 2}


def test_an_identity_without_its_spool_is_replaced(edge: Edge) -> None:
    edge.open()
    count(edge.worker, ACME, 5)
    edge.sealer.seal(MINUTE + 1)
    before = edge.sealer.identity.id
    shutil.rmtree(edge.state / "spool")
    edge.again(MINUTE + 2)
    assert edge.sealer.identity.id != before
    count(edge.worker, ACME, 1)
    edge.sealer.seal(MINUTE + 3)
    assert edge.last.rows == ((*ACME, 1),)


# ---- a full disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file system of 64 KiB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_sealing_and_nothing_else(tmp_path: Path, small: Path) -> None:
    state = tmp_path / "state"
    store = prepare(state)
    (state / "spool").symlink_to(small, target_is_directory=True)
    worker = Store.join(state)
    sealer = Sealer.open(store, "here", NOW, disk=Disk())
    step = failures = 0
    ballast = small / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    while failures < 5:
        step += 1
        count(worker, name(step % 30))
        try:
            sealer.seal(NOW + step)
        except OSError as failure:
            failures += failure.errno == errno.ENOSPC
            # A batch that could not be written whole leaves no part.
            assert len(batches(state / "spool")) == step - failures
    assert sums(state / "spool") < totals(store)
    # The supervisor starts anew, and the disk is still full.
    sealer.close()
    sealer = Sealer.open(store, "here", NOW + step)
    with pytest.raises(OSError, match="No space left"):
        sealer.seal(NOW + step)
    ballast.unlink()
    assert sealer.seal(NOW + step + 200).rows == 5
    assert batches(state / "spool")[-1].long
    assert sums(state / "spool") == totals(store)
    assert len(list_segments(state / "spool")) == 1
    for one in (sealer, worker, store):
        one.close()
