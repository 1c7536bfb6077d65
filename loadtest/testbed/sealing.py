"""Helpers for tests of sealing: an edge's state directory with small tables, for thousands of starts, and faulty
disks.
"""

import errno
import os
import random
from collections import Counter
from pathlib import Path

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import tally_key
from edgeproxy.edge.usage.backlog import find_position
from edgeproxy.edge.usage.segment import Damage, Disk, parse_records
from edgeproxy.edge.usage.spool import Spool, list_segments
from edgeproxy.wire.batch import Batch, compute_digest, is_long, parse_batch

NOW = 1_790_000_000.0
"""A Unix second that is not the start of a minute."""

Name = tuple[str, str, str]


class Killed(BaseException):
    """The exception that stands for the end of the process."""


class Faulty(Disk):
    """A disk whose nth act fails. `acts` counts down; the failure is one of `WAYS`."""

    def __init__(self, acts: int = 0, way: str = "") -> None:
        self.acts = acts
        self.way = way
        self.full = False

    def _next(self) -> str:
        self.acts -= 1
        return self.way if self.acts == 0 else ""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        way = self._next()
        if way == "before":
            raise Killed
        if way == "torn":
            os.pwrite(fd, data[: len(data) // 2], offset)
            raise Killed
        if way == "full" or self.full:
            os.pwrite(fd, data[: len(data) // 3], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(fd, data, offset)
        if way == "after":
            raise Killed

    def sync(self, fd: int) -> None:
        way = self._next()
        if way in ("before", "torn"):
            raise Killed
        if way == "full":
            raise OSError(errno.EIO, "Input/output error")
        super().sync(fd)
        if way == "after":
            raise Killed

    def truncate(self, fd: int, size: int) -> None:
        way = self._next()
        if way in ("before", "torn"):
            raise Killed
        if way == "full":
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(fd, size)
        if way == "after":
            raise Killed


WAYS = ("before", "torn", "full", "after")


def prepare(state: Path, workers: int = 2, customers: int = 40, boot: str = "one") -> Store:
    """Return a state directory as a supervisor has it. It maintains the directory if no other process does."""
    store = Store.prepare(state, workers=workers, customers=customers, addresses=8, boot=boot, offset=5e7)
    store.identity.try_acquire()
    return store


def count(worker: Store, name: Name, n: int = 1) -> None:
    """Count in a worker's column, as the worker does."""
    worker.usage.words[worker.usage.own(tally_key(*name), 1)] += n


def name(number: int) -> Name:
    """Return a name of usage."""
    return f"customer-{number % 7}", ("requests", "egress")[number % 2], f"api.example.com/v{number}/*"


def totals(store: Store) -> Counter[Name]:
    """Return the counts of the tables since the state was created."""
    counts: Counter[Name] = Counter()
    for customer, meter, route, total, *_ in store.usage_totals():
        if total:
            counts[customer, meter, route] += total
    return counts


def batches(folder: Path, *, torn: bool = False) -> list[Batch]:
    """Return all batches of a spool, and require that they form a chain. If `torn`, junk may follow the last one."""
    found: list[Batch] = []
    prev, seq = "0" * 64, 0
    for path in list_segments(folder):
        for record in parse_records(path.read_bytes()):
            if torn and isinstance(record, Damage) and path == list_segments(folder)[-1]:
                assert record.until == path.stat().st_size
                break
            assert not isinstance(record, Damage), f"{path}: {record}"
            batch = parse_batch(record.body)
            assert (batch.seq, batch.prev) == (seq + 1, prev)
            if found:
                assert batch.since >= found[-1].since
                assert batch.until >= found[-1].until
                assert batch.edge == found[-1].edge
            assert batch.long or not is_long(batch.since, batch.until)
            found.append(batch)
            prev, seq = compute_digest(record.body), batch.last
    return found


def sums(folder: Path, *, torn: bool = False) -> Counter[Name]:
    """Return the sums of a spool's batches."""
    counts: Counter[Name] = Counter()
    for batch in batches(folder, torn=torn):
        for customer, meter, route, value, *_ in batch.rows:
            counts[customer, meter, route] += value
    return counts


def acknowledge(spool: Spool, seq: int) -> None:
    """Acknowledge batches, as if the collector had, and record it on disk."""
    spool.acknowledge(find_position(spool, seq))
    spool.save()


def choose(chance: random.Random) -> Name:
    """Choose a name; some are more frequent than others."""
    return name(int(chance.random() ** 2 * 24))
