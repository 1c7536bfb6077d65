from pathlib import Path

import pytest

from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.locks import FileLock


def test_file_lock_has_one_holder(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.try_acquire()
    assert one.held
    assert one.try_acquire()
    assert not other.try_acquire()
    assert not other.held
    one.release()
    assert not one.held
    assert other.try_acquire()
    other.release()
    other.release()


def test_shared_file_lock_excludes_an_exclusive_holder(tmp_path: Path) -> None:
    one, other, alone = (FileLock(tmp_path / "lock") for _ in range(3))
    one.acquire(shared=True)
    other.acquire(shared=True)
    assert not alone.try_acquire()
    one.release()
    other.release()
    assert alone.try_acquire()
    alone.release()


def test_lock_timeout_names_the_lock_file(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    one.acquire()
    with pytest.raises(TableError, match="lock: has been held by another process for 0 s"):
        other.acquire(patience=0.02)
    one.release()
