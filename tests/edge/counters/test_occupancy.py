"""The open requests of subjects, with several workers on one state directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.occupancy import COUNT_BITS, ROWS, WAYS, Occupancy
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import TallyTable
from tests.support.resident_memory import measure_resident_bytes

Supervise = Callable[..., Store]
Work = Callable[[], Store]

HERE = b"\x7f\0\0\1"


def room(store: Store, subject: bytes = HERE) -> int:
    """Return how many more the subject may open under a bound of 10. All claims are released again."""
    claimed = 0
    while store.connected.claim(subject, 10):
        claimed += 1
    for _ in range(claimed):
        store.connected.release(subject)
    return claimed


def test_a_bound_holds_over_all_workers(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    one, other = work().connected, work().connected
    assert one.claim(HERE, 3)
    assert other.claim(HERE, 3)
    assert one.claim(HERE, 3)
    assert not other.claim(HERE, 3)
    assert not one.claim(HERE, 3)
    one.release(HERE)
    assert other.claim(HERE, 3)
    assert not one.claim(HERE, 3)


def test_released_occupancy_leaves_no_words_in_the_table(supervise: Supervise, work: Work) -> None:
    supervise(workers=1)
    store = work()
    table = store.connected._table
    for n in range(ROWS * WAYS):
        store.connected.claim(b"%d" % n, 1)
        store.connected.release(b"%d" % n)
    assert not store.connected._open
    first = table.file.layout.first_row
    assert not any(table.words[first:].tolist())


def test_occupancy_of_a_dead_worker_ends_at_the_next_refresh(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    one, other = work(), work()
    for _ in range(4):
        assert other.connected.claim(HERE, 10)
    assert room(one) == 6
    other.close()
    # That it lived is known until the next look, twice a second.
    assert room(one) == 6
    one.refresh_columns()
    assert room(one) == 10


def test_a_column_is_cleared_at_the_start_of_its_next_worker(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    one, other = work(), work()
    names = [b"%d" % number for number in range(5000)]
    for store in (one, other):
        assert all(store.connected.claim(name, 10) for name in names)
    column = one.connected._own
    one.close()
    again = work()
    assert again.connected._own == column
    words = again.connected._table.words
    first, stride = again.connected._first, again.connected._stride
    rows = [words[row : row + 2 * WAYS].tolist() for row in range(first, first + ROWS * stride, stride)]
    counts = [sum(map(bool, row[own : own + WAYS])) for own in (column, other.connected._own) for row in rows]
    assert (sum(counts[:ROWS]), sum(counts[ROWS:])) == (0, len(names))


def test_a_start_touches_no_unused_row(supervise: Supervise, work: Work) -> None:
    supervise(workers=1)
    file = work().connected._table.file
    assert measure_resident_bytes(file.path) < file.layout.size // 8


def test_subject_without_a_slot_is_counted_only_in_its_worker(supervise: Supervise, work: Work) -> None:
    supervise(workers=2)
    one, other = work(), work()
    index = one.connected._table.index
    row = index.hash(HERE) % ROWS
    crowd = [name for name in (b"%d" % n for n in range(200_000)) if index.hash(name) % ROWS == row][:WAYS]
    assert len(crowd) == WAYS
    for name in crowd:
        assert one.connected.claim(name, 10)
    assert one.connected.claim(HERE, 10)
    assert room(one) == 9
    assert room(other) == 10
    one.connected.release(HERE)
    one.connected.release(crowd[0])
    assert one.connected.claim(HERE, 10)
    assert room(other) == 9


def test_tags_of_different_subjects_in_a_row_differ_in_44_bits() -> None:
    assert COUNT_BITS + 44 == 64
    assert ROWS <= 1 << COUNT_BITS


def test_a_process_without_a_column_has_nothing_open(supervise: Supervise, work: Work) -> None:
    supervise(workers=1)
    file = work().connected._table.file
    with pytest.raises(ValueError, match="without a column"):
        Occupancy(TallyTable(file))


def test_files_of_an_old_layout_are_deleted_after_their_last_worker(
    supervise: Supervise, work: Work, state: Path
) -> None:
    supervise(workers=1)
    old = work()
    old.connected.claim(HERE, 10)
    supervisor = supervise(workers=2)
    new = work()
    assert new.connected._table.file is not old.connected._table.file
    supervisor.maintain(5e7)
    assert (state / "connections.1.tbl").exists()
    old.close()
    assert "connections.1.tbl" in supervisor.maintain(5e7).removed
    assert not (state / "connections.1.tbl").exists()
    assert room(new) == 10
