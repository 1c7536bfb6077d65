"""The repair of a table of limits after a process was killed while it claimed or freed a row."""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.index import ROW_BITS, TOMBSTONE
from edgeproxy.edge.counters.rows import LimitTable


def repair_if_free(table: LimitTable) -> None:
    """Repair the table, unless another process has the flock."""
    if table.file.lock():
        try:
            if table.words[at.DAMAGED]:
                repair(table)
        finally:
            table.file.unlock()


def repair(table: LimitTable) -> int:
    """Repair the table, and return how many rows are free. For the flock's holder.

    The index says which rows are in use; all others that were ever handed out are free. After a power cut any page may
    be older than the others, so an entry of the index counts only if its row has the key.
    """
    words = table.words
    words[at.PENDING] = 1
    in_use = set()
    for slot, tag, number in table.index.entries():
        if _has_indexed_key(table, tag, number):
            in_use.add(number)
        else:
            table.index.words[slot] = TOMBSTONE
    words[at.HIGH] = max(words[at.HIGH], 1 + max(in_use, default=-1))
    # Before any of these rows is written. The header may be older than the index.
    if not table.file.allocate(words[at.HIGH]):
        raise TableError(table.file.path, f"cannot be repaired: {table.file.no_room}")
    words[at.FREE] = words[at.FREE_GAUGES] = free = 0
    for number in range(table.high):
        if number not in in_use:
            row = table.row(number)
            freed = table.free_list_of(row)
            words[row + at.ROW_HASH] = 0
            words[row + at.ROW_BORN] = words[freed]
            words[freed] = number + 1
            free += 1
    words[at.IN_USE] = len(in_use)
    words[at.DAMAGED] = 0
    table.record_change()
    return free


def _has_indexed_key(table: LimitTable, tag: int, number: int) -> bool:
    """Return whether the upper bits of a hash, and a row's number, belong to a row and to the key in it."""
    if number >= table.layout.rows:
        return False
    key_hash = table.words[table.row(number) + at.ROW_HASH]
    return key_hash >> ROW_BITS == tag and table.make_key_of(table, table.row(number)).hash == key_hash
