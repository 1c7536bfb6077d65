import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.file import TableError, TableFile, write_whole
from edgeproxy.edge.counters.index import TableFullError
from edgeproxy.edge.counters.row_repair import repair
from edgeproxy.edge.counters.rows import CHUNKS_MAX
from tests.support.tables import (
    CUSTOMERS,
    FORMER,
    HEADS_WITHIN,
    INSTANCE,
    KEYS_WITHIN,
    METRICS,
    ONE_PART,
    QUOTAS,
    TWO_PARTS,
    USAGE,
    WHOLE_KEYS,
    limits,
    make,
    opened,
)

LARGE = CUSTOMERS._replace(rows=10_000, columns=8)
"""A layout of more than three chunks."""
KINDS = (CUSTOMERS, QUOTAS, HEADS_WITHIN, KEYS_WITHIN, TWO_PARTS, ONE_PART, FORMER, USAGE, WHOLE_KEYS, METRICS)


def test_new_small_table_file_is_fully_allocated_and_zeroed(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    assert path.stat().st_size == CUSTOMERS.size
    assert path.stat().st_blocks * 512 >= CUSTOMERS.size
    assert path.stat().st_mode & 0o777 == 0o600
    file = opened(path)
    assert file.layout == CUSTOMERS
    assert (file.generation, file.instance, file.boot) == (1, INSTANCE, 1)
    assert not any(file.words[at.HEADER_WORDS :].tolist())
    assert os.listdir(tmp_path) == [path.name]


def test_a_table_of_limits_grows_by_chunks_up_to_its_last_row(tmp_path: Path) -> None:
    path = make(tmp_path, LARGE)
    assert path.stat().st_size == LARGE.size
    allocated = sum(end - start for start, end in LARGE.list_extents(0, LARGE.chunk))
    assert allocated <= path.stat().st_blocks * 512 < LARGE.size // 2
    table = limits(path, 0)
    rows = [table.find(table.make_key(b"%d" % number), 1000, 0.0)[0] for number in range(LARGE.rows)]
    assert len(set(rows)) == LARGE.rows == table.words[at.ALLOCATED]
    assert path.stat().st_blocks * 512 >= LARGE.size
    with pytest.raises(TableFullError):
        table.find(table.make_key(b"one more"), 1000, 0.0)
    assert not table.file.grow()


def fail_for_want_of_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_last_rows_of_a_table_leave_the_size_of_its_file(tmp_path: Path) -> None:
    # The last chunk has one row, so its part of the rests of keys is in an allocated page.
    layout = CUSTOMERS._replace(rows=CUSTOMERS.chunk + 1)
    path = make(tmp_path, layout)
    assert opened(path).grow()
    assert path.stat().st_size == layout.size
    opened(path)


def test_a_disk_without_room_for_more_rows_leaves_the_table_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = limits(make(tmp_path, LARGE), 0)
    for number in range(LARGE.chunk):
        table.find(table.make_key(b"%d" % number), 1000, 0.0)

    monkeypatch.setattr(os, "posix_fallocate", fail_for_want_of_room)
    for _ in range(2):
        with pytest.raises(TableFullError):
            table.find(table.make_key(b"one more"), 1000, 0.0)
    table.grow_in_time()
    with pytest.raises(TableError, match="cannot be used: No space left on device"):
        table.file.allocate_again()
    assert table.find(table.make_key(b"1"), 1000, 0.0)[2] is False
    monkeypatch.undo()
    assert table.find(table.make_key(b"one more"), 1000, 0.0)[2] is True
    assert not table.words[at.DAMAGED]


def test_rows_above_the_allocated_ones_are_allocated_by_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = limits(make(tmp_path, LARGE), 0)
    words, chunk = table.words, LARGE.chunk
    for number in range(2 * chunk + 1):
        table.find(table.make_key(b"%d" % number), 1000, 0.0)
    # The disk has the header as of before the second chunk, and the index and the rows as of now.
    words[at.HIGH] = words[at.ALLOCATED] = chunk
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", fail_for_want_of_room)
        with pytest.raises(TableError, match=r"cannot be repaired: .*No space left"):
            repair(table)
    repair(table)
    assert words[at.HIGH] == 2 * chunk + 1
    assert words[at.ALLOCATED] == 3 * chunk


def test_row_beyond_the_allocation_extends_it(tmp_path: Path) -> None:
    table = limits(make(tmp_path, LARGE), 0)
    table.words[at.HIGH] = 2 * LARGE.chunk
    table.find(table.make_key(b"acme"), 1000, 0.0)
    assert table.words[at.ALLOCATED] == 3 * LARGE.chunk


def test_a_supervisor_allocates_rows_before_workers_need_them(tmp_path: Path) -> None:
    table = limits(make(tmp_path, LARGE), 0)
    words, chunk = table.words, LARGE.chunk
    table.grow_in_time()
    assert words[at.ALLOCATED] == chunk
    table.find(table.make_key(b"one"), 1000, 0.0)
    other = limits(table.file.path)
    assert other.file.lock()
    table.grow_in_time()
    assert words[at.ALLOCATED] == chunk, "another process claims a row"
    other.file.unlock()
    table.grow_in_time()
    assert words[at.ALLOCATED] == 2 * chunk
    words[at.HIGH] = 2 * chunk
    table.grow_in_time()
    table.grow_in_time()
    assert words[at.ALLOCATED] == 3 * chunk


def test_a_slice_of_maintenance_allocates_a_few_chunks(tmp_path: Path) -> None:
    table = limits(make(tmp_path, LARGE._replace(rows=40_000)), 0)
    words, chunk = table.words, LARGE.chunk
    words[at.HIGH] = 9 * chunk
    table.grow_in_time()
    assert words[at.ALLOCATED] == (1 + CHUNKS_MAX) * chunk


def test_a_new_file_has_room_for_the_rows_in_use(tmp_path: Path) -> None:
    path = tmp_path / "customers.1.tbl"
    TableFile.create(path, LARGE, generation=1, instance=INSTANCE, boot=1, used_rows=LARGE.chunk)
    file = opened(path)
    assert file.words[at.ALLOCATED] == 2 * LARGE.chunk
    os.truncate(path, LARGE.list_extents(0, 1)[0][1])
    os.truncate(path, LARGE.size)
    file.allocate_again()
    allocated = sum(end - start for start, end in LARGE.list_extents(0, 2 * LARGE.chunk))
    assert path.stat().st_blocks * 512 >= allocated


def test_former_formats_are_read_and_metrics_are_in_the_first_one_still(tmp_path: Path) -> None:
    versions = {layout: opened(make(tmp_path, layout, number)).words[at.VERSION] for number, layout in enumerate(KINDS)}
    assert [versions[layout] for layout in KINDS] == [6, 2, 5, 4, 3, 2, 1, 3, 1, 1]


def test_two_files_hash_with_different_seeds(tmp_path: Path) -> None:
    assert opened(make(tmp_path, CUSTOMERS)).seed != opened(make(tmp_path, USAGE)).seed


def test_half_of_the_columns_count_from_the_first(tmp_path: Path) -> None:
    words = opened(make(tmp_path, CUSTOMERS._replace(columns=200))).words
    for bitmap in (at.USED_COLUMNS, at.ACTIVE_COLUMNS):
        assert words[bitmap : bitmap + 3].tolist() == [(1 << 64) - 1, (1 << 36) - 1, 0]


def test_more_columns_than_a_file_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"customers.1.tbl: has 450 columns, and 448 is the most: fewer workers"):
        make(tmp_path, CUSTOMERS._replace(columns=450))


def written(path: Path, word: int, value: int) -> None:
    with open(path, "r+b") as file:
        file.seek(word * 8)
        file.write(value.to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("word", "value", "why"),
    [
        (at.MAGIC, 1, "is not a table of edgeproxy: move it away"),
        (at.VERSION, 9, "has format version 9, and this program reads 6: move it away"),
        (at.KIND, 1, "holds addresses, not customers: move it away"),
        (at.KIND, 77, "holds unknown, not customers: move it away"),
        (at.ROWS, 13, "bytes long and should be"),
        (at.INSTANCE, 7, "belongs to another state directory"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path: Path, word: int, value: int, why: str) -> None:
    path = make(tmp_path, CUSTOMERS._replace(rows=11))
    written(path, word, value)
    if word == at.ROWS:
        written(path, word, 500)
    with pytest.raises(TableError) as refused:
        opened(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert why in str(refused.value)


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    os.truncate(path, at.PAGE * 2)
    with pytest.raises(TableError, match="is 8192 bytes long and should be"):
        opened(path)
    for size in (at.PAGE * 2 + 1, at.PAGE * 3 - 1):
        os.truncate(path, size)
        with pytest.raises(TableError, match=f"is {size} bytes long, which no table is"):
            opened(path)
    os.truncate(path, 100)
    with pytest.raises(TableError, match="is 100 bytes long, too short for a table"):
        opened(path)


def test_missing_table_file_raises_an_error_with_its_errno(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be opened: No such file") as missing:
        opened(tmp_path / "customers.1.tbl")
    assert missing.value.errno == 2


def test_a_refused_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    written(path, at.MAGIC, 1)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TableError):
        opened(path)
    os.truncate(path, 5)
    with pytest.raises(TableError):
        opened(path)
    assert os.listdir("/proc/self/fd") == before


def test_the_flock_is_had_by_one_descriptor_at_a_time(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    one, other = opened(path), opened(path)
    assert one.lock()
    assert not other.lock()
    one.unlock()
    assert other.lock()
    other.close()
    assert one.lock()
    one.close()


def test_next_lock_after_an_interrupted_change_marks_damage(tmp_path: Path) -> None:
    file = opened(make(tmp_path, CUSTOMERS))
    file.words[at.PENDING] = 1
    assert not file.words[at.DAMAGED]
    assert file.lock()
    assert file.words[at.DAMAGED]


FULL = """
import resource, signal, sys
from pathlib import Path
from edgeproxy.edge.counters.file import TableError
from tests.support.tables import CUSTOMERS, make
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    make(Path(sys.argv[1]), CUSTOMERS._replace(rows=1000))
except TableError as full:
    print(full)
"""


def test_no_room_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        (sys.executable, "-c", FULL, str(tmp_path)), capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == f"{tmp_path}/customers.1.tbl: cannot be made: File too large (1 MiB are needed)\n"
    assert os.listdir(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)), capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(("umount", str(folder)), check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(TableError, match=r"customers.1.tbl: cannot be made: No space left on device") as full:
        make(small_disk, CUSTOMERS._replace(rows=1000))
    assert full.value.errno == 28
    assert os.listdir(small_disk) == []


def test_write_whole_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    write_whole(path, b"one")
    write_whole(path, b"another")
    assert path.read_bytes() == b"another"
    assert os.listdir(tmp_path) == ["base.json"]


def test_failed_write_whole_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base.json"
    write_whole(path, b"one")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(TableError, match=r"base.json: cannot be made: Input/output error$"):
        write_whole(path, b"another")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["base.json"]


def test_a_closed_file_is_unmapped(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    file = TableFile.open(path, kind="customers", instance=INSTANCE)
    assert str(path) in Path("/proc/self/maps").read_text()
    file.close()
    assert str(path) not in Path("/proc/self/maps").read_text()
