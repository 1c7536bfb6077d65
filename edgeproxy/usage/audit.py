"""What is in a spool, for those who only look: `edgeproxy spool ls` and `verify`. The edge may seal meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeproxy.counters.control import Control
from edgeproxy.counters.file import TableFile
from edgeproxy.counters.setup import file_name, generations
from edgeproxy.usage.batch import FIRST, BadBatch, Batch, digest, read
from edgeproxy.usage.seal import USAGE, sealed_so_far
from edgeproxy.usage.segment import Damage, Record, records
from edgeproxy.usage.spool import Place, first_of, segments, watermark


class Segment(NamedTuple):
    """A segment: its batches, `last` being `first - 1` where it has none yet, and its bytes."""

    path: Path
    first: int
    last: int
    size: int


class Verdict(NamedTuple):
    """What came of reading a whole spool: batches that can be read, what is wrong, and what only looks like it."""

    batches: int
    rows: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def listing(folder: Path) -> list[Segment]:
    """The segments of a spool. Reads the last one only."""
    paths = segments(folder)
    found = []
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        last = _last_of(path) if following is None else first_of(following) - 1
        found.append(Segment(path, first_of(path), last, path.stat().st_size))
    return found


def _last_of(path: Path) -> int:
    """The last batch of a segment that can be read."""
    for one in reversed(list(records(path.read_bytes()))):
        if isinstance(one, Record):
            try:
                return read(one.body).last
            except BadBatch:
                continue
    return first_of(path) - 1


def sealed_in_tables(state: Path, folder: Path) -> int:
    """The last batch that the tables know of; 0 where there are none. `folder` has them. Raises TableError."""
    if not (state / "control").exists():
        return 0
    control = Control.open(state / "control")
    files = []
    try:
        for number in generations(folder, USAGE):
            files.append(TableFile.open(folder / file_name(USAGE, number), kind=USAGE, instance=control.instance))
        return sealed_so_far(files)
    finally:
        for file in files:
            file.close()
        control.close()


def verify(folder: Path, edge: str, sealed: int) -> Verdict:
    """Read everything: every checksum, every batch, and that each follows the one before.

    `edge` is whose spool it is. `sealed` is the last batch that is known to have been sealed, asked for before this.
    """
    batches = rows = 0
    problems: list[str] = []
    torn: list[Place] = []
    # What the next batch must follow; a hash that is not known may be any.
    wanted, prev = 0, FIRST
    for place, one in _all(folder):
        if isinstance(one, Damage):
            torn.append(Place(place, one))
            prev = ""
            continue
        problems += [str(damaged) for damaged in torn]
        torn.clear()
        where = f"{place}:{one.offset}"
        try:
            batch = read(one.body)
        except BadBatch as wrong:
            problems.append(f"{where}: holds no batch: it {wrong}")
            prev = ""
            continue
        problems += [f"{where}: batch {batch.seq} {why}" for why in _faults(batch, edge, wanted, prev, folder)]
        batches, rows = batches + 1, rows + len(batch.rows)
        wanted, prev = batch.last + 1, digest(one.body)
    there = max(0, wanted - 1)
    lost = max(sealed, watermark(folder)) > there
    if lost:
        problems += [str(damaged) for damaged in torn]
        problems.append(
            f"{folder}: batch {max(sealed, watermark(folder))} was sealed, and {there} is the last one here"
        )
    notes = () if lost else tuple(f"{damaged}: nothing was sealed there, a start cuts it off" for damaged in torn)
    return Verdict(batches, rows, tuple(problems), notes)


def _all(folder: Path) -> Iterator[tuple[Path, Record | Damage]]:
    for path in segments(folder):
        for one in records(path.read_bytes()):
            yield path, one


def _faults(batch: Batch, edge: str, wanted: int, prev: str, folder: Path) -> Iterator[str]:
    """What is wrong with a batch where `wanted` should be, which follows the hash `prev` (empty: any)."""
    if batch.edge != edge:
        yield f"is of {batch.edge}, and the spool of {edge}"
    if not wanted:
        # What is before the first one here was removed once it had been acknowledged.
        if batch.seq - 1 > watermark(folder):
            yield f"is the first one here, and only those up to {watermark(folder)} were acknowledged"
        elif batch.seq == 1 and batch.prev != FIRST:
            yield "is the first one, and names one before it"
    elif batch.seq != wanted:
        yield f"is where batch {wanted} should be"
    elif prev and batch.prev != prev:
        yield "does not follow the one before it: the hashes differ"
