"""Columns: each belongs to the process that holds a lock on it in every current file.

The lock is an open file description lock (fcntl(2)) on byte <column> of the file: it ends when its holder does, is
never inherited by exec, and a reader can query its holder without acquiring it. A read lock reserves the column, whose
words a dead predecessor wrote. Its holder makes it a write lock as soon as the words are its own.
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgeproxy.edge.counters.file import TableFile

FLOCK = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length, process."""

ORPHAN_LOCKS_BYTE = 1 << 16
"""The first of a second range of bytes, one for each column: locked while its worker serves without a supervisor."""
RESERVED_LOCKS_BYTE = 1 << 17
"""The first of a range of bytes, one for each column: locked by the only process that may reserve it."""
SIBLING_LOCKS_BYTE = 1 << 62
"""The first of a range, one for each supervisor by its token: its workers share a lock while they serve alone."""


class NoFreeColumnError(Exception):
    """Every column is held: the worker cannot start."""


def acquire_column(files: Sequence[TableFile]) -> int:
    """Reserve a column, and count in it at once: nothing in it is the predecessor's."""
    column = reserve_column(files)
    begin_counting(files, column)
    return column


def reserve_column(files: Sequence[TableFile]) -> int:
    """Lock the lowest column that is free in all of `files`, for the life of this process.

    Raises NoFreeColumnError if all are held.
    """
    columns = min(file.layout.columns for file in files)
    for column in range(columns):
        if _reserve_column(files, column):
            return column
    raise NoFreeColumnError(f"all {columns} columns of {files[0].path.parent} are taken by running workers")


def begin_counting(files: Sequence[TableFile], column: int) -> None:
    """Declare that the words of a reserved column are this process's own."""
    for file in files:
        _set(file, column, fcntl.F_WRLCK)
        _set(file, RESERVED_LOCKS_BYTE + column, fcntl.F_UNLCK)


def _reserve_column(files: Sequence[TableFile], column: int) -> bool:
    for taken, file in enumerate(files):
        if not _reserve(file, column):
            release_column(files[:taken], column)
            return False
    return True


def _reserve(file: TableFile, column: int) -> bool:
    if not _set(file, RESERVED_LOCKS_BYTE + column, fcntl.F_WRLCK):
        return False
    if _set(file, column, fcntl.F_RDLCK):
        return True
    _set(file, RESERVED_LOCKS_BYTE + column, fcntl.F_UNLCK)
    return False


def release_column(files: Sequence[TableFile], column: int) -> None:
    """Unlock a column."""
    for file in files:
        _set(file, column, fcntl.F_UNLCK)
        _set(file, RESERVED_LOCKS_BYTE + column, fcntl.F_UNLCK)


@contextmanager
def borrow_column(file: TableFile, column: int) -> Iterator[bool]:
    """Reserve a column for a moment; yield False if another process holds it. A worker that starts takes another."""
    mine = _reserve(file, column)
    try:
        yield mine
    finally:
        if mine:
            release_column((file,), column)


def count_free_columns(files: Sequence[TableFile]) -> int:
    """Return how many columns are free in all of `files`."""
    columns = min(file.layout.columns for file in files)
    return sum(not any(is_held(file, column) for file in files) for column in range(columns))


def list_held_columns(file: TableFile) -> frozenset[int]:
    """Return the columns of `file` that others hold; locks acquired through `file` itself do not show."""
    return frozenset(column for column in range(file.layout.columns) if is_held(file, column))


def list_counting_columns(file: TableFile) -> frozenset[int]:
    """Return the columns of `file` in which running processes count."""
    return frozenset(column for column in range(file.layout.columns) if is_counting(file, column))


def is_held(file: TableFile, column: int) -> bool:
    """Return whether another opening than `file` itself holds this column."""
    return _lock_of(file, column) != fcntl.F_UNLCK


def is_counting(file: TableFile, column: int) -> bool:
    """Return whether another opening than `file` itself counts in this column, so that a running process wrote all its
    words.
    """
    return _lock_of(file, column) == fcntl.F_WRLCK


def declare_orphan(file: TableFile, column: int, token: int, *, last: bool) -> None:
    """Declare that this column's worker serves without its supervisor, which had this token; `last`: that supervisor
    was the last to serve.
    """
    _set(file, ORPHAN_LOCKS_BYTE + column, fcntl.F_WRLCK if last else fcntl.F_RDLCK)
    _set(file, _sibling_byte(token), fcntl.F_RDLCK)


def withdraw_orphan(file: TableFile, column: int, token: int) -> None:
    """Withdraw the declaration: the worker accepts no further connection."""
    _set(file, ORPHAN_LOCKS_BYTE + column, fcntl.F_UNLCK)
    _set(file, _sibling_byte(token), fcntl.F_UNLCK)


def has_orphans(file: TableFile, token: int) -> bool:
    """Return whether other workers of the supervisor with this token are declared."""
    return _lock_of(file, _sibling_byte(token)) != fcntl.F_UNLCK


def list_orphans(file: TableFile) -> dict[int, bool]:
    """Return the columns that other processes declared, each with its `last`."""
    kinds = {column: _lock_of(file, ORPHAN_LOCKS_BYTE + column) for column in range(file.layout.columns)}
    return {column: kind == fcntl.F_WRLCK for column, kind in kinds.items() if kind != fcntl.F_UNLCK}


def _sibling_byte(token: int) -> int:
    return SIBLING_LOCKS_BYTE + token % SIBLING_LOCKS_BYTE  # Offsets have 63 bits.


def _lock_of(file: TableFile, byte: int) -> int:
    """Return the kind of lock that another opening of the file has on a byte."""
    request = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = FLOCK.unpack(fcntl.fcntl(file.fd, fcntl.F_OFD_GETLK, request))[0]
    return kind


def _set(file: TableFile, byte: int, kind: int) -> bool:
    try:
        fcntl.fcntl(file.fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except BlockingIOError:
        return False
    return True
