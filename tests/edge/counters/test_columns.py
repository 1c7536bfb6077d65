import fcntl
from pathlib import Path

import pytest

from edgeproxy.edge.counters.columns import (
    FLOCK,
    acquire_column,
    begin_counting,
    declare_orphan,
    is_counting,
    is_held,
    list_held_columns,
    list_orphans,
    release_column,
    reserve_column,
    withdraw_orphan,
)
from edgeproxy.edge.counters.file import TableFile
from tests.support.program import Program
from tests.support.tables import CUSTOMERS, USAGE, make, opened

BOTH_ORDERS = True


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path, CUSTOMERS), make(tmp_path, USAGE)


def both(paths: tuple[Path, Path]) -> list[TableFile]:
    return [opened(path) for path in paths]


def test_a_column_is_free_again_when_its_holder_has_closed_the_files(paths: tuple[Path, Path]) -> None:
    workers = [both(paths) for _ in range(3)]
    for files in workers:
        acquire_column(files)
    for file in workers[1]:
        file.close()
    assert acquire_column(both(paths)) == 1


def test_a_column_must_be_free_in_every_file(paths: tuple[Path, Path]) -> None:
    customers, usage = both(paths)
    acquire_column([usage])
    files = both(paths)
    assert acquire_column(files) == 1
    # The failed attempt has released its locks.
    assert list_held_columns(customers) == {1}
    assert list_held_columns(opened(paths[1])) == {0, 1}


def test_column_reader_lists_held_columns_without_holding_one(paths: tuple[Path, Path]) -> None:
    files = both(paths)
    column = acquire_column(files)
    reader = opened(paths[0])
    assert list_held_columns(reader) == {column}
    assert is_held(reader, column)
    assert not is_held(reader, 1)
    release_column(files, column)
    assert list_held_columns(reader) == frozenset()


def test_only_a_write_locked_column_counts(paths: tuple[Path, Path]) -> None:
    """Workers of earlier programs write-lock theirs for life."""
    files, reader = both(paths), opened(paths[0])
    assert reserve_column(files) == 0
    assert (is_held(reader, 0), is_counting(reader, 0)) == (True, False)
    assert reserve_column(both(paths)) == 1, "two processes cannot reserve one column"
    begin_counting(files, 0)
    assert is_counting(reader, 0)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(reader.fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, 0, 0, 1, 0))
    assert reserve_column(both(paths)) == 2
    release_column(files, 0)
    assert reserve_column(both(paths)) == 0


def test_orphaned_worker_is_listed_by_its_own_lock(paths: tuple[Path, Path]) -> None:
    workers = [opened(paths[0]) for _ in range(3)]
    columns = [acquire_column([file]) for file in workers]
    declare_orphan(workers[0], columns[0], 1, last=True)
    declare_orphan(workers[1], columns[1], 2, last=True)
    declare_orphan(workers[1], columns[1], 2, last=False)
    reader = opened(paths[0])
    assert list_orphans(reader) == {0: True, 1: False}
    assert list_orphans(workers[0]) == {1: False}
    assert list_held_columns(reader) == {0, 1, 2}
    withdraw_orphan(workers[1], columns[1], 2)
    assert list_orphans(reader) == {0: True}
    workers[0].close()
    assert list_orphans(reader) == {}
    assert list_held_columns(reader) == {1, 2}


HOLDER = """
import sys
from pathlib import Path
from edgeproxy.edge.counters.columns import acquire_column
from tests.support.tables import opened
files = [opened(Path(path)) for path in sys.argv[1:]]
print(acquire_column(files), flush=True)
sys.stdin.read()
"""


def test_kill_9_frees_a_column(paths: tuple[Path, Path]) -> None:
    with Program("-c", HOLDER, *paths) as holder:
        assert holder.heard() == "0"
        reader = opened(paths[0])
        assert list_held_columns(reader) == {0}
        holder.kill()
    assert list_held_columns(reader) == frozenset()
    assert acquire_column(both(paths)) == 0
