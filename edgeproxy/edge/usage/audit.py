"""Reading a spool without writing: `edgeproxy spool ls` and `verify`. The edge may seal meanwhile."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.setup import file_name, list_generations
from edgeproxy.edge.usage.identity import LastSealed
from edgeproxy.edge.usage.seal import find_last_sealed
from edgeproxy.edge.usage.segment import MODULUS, Damage, Record, parse_records
from edgeproxy.edge.usage.spool import (
    DiscardedRange,
    LocatedDamage,
    fetch_discarded,
    fetch_position,
    guess_position,
    list_segments,
    parse_first_seq,
)
from edgeproxy.edge.usage.table_reading import USAGE
from edgeproxy.wire.batch import FIRST, WHY_CHARACTERS_MAX, Batch, InvalidBatchError, compute_digest, parse_batch


class SegmentSummary(NamedTuple):
    """A segment: its batches, `last` being `first - 1` if it has none yet, and its bytes."""

    path: Path
    first: int
    last: int
    size: int


class ShippingProgress(NamedTuple):
    """Progress of shipping: the collector's last batch, the last one that it ever had, the last one here, and the sum
    of counts between the first of these and the last.
    """

    watermark: int
    most: int
    last: int
    values: int


class SpoolVerdict(NamedTuple):
    """The outcome of reading a whole spool: readable batches, problems, and notes about harmless damage.

    `unread`: the unreadable batches that were not discarded yet.
    """

    batches: int
    rows: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    unread: tuple[DiscardedRange, ...] = ()


def summarize_segments(folder: Path) -> list[SegmentSummary]:
    """List the segments of a spool. Reads the last one only."""
    paths = list_segments(folder)
    summaries = []
    for path, following in zip_longest(paths, paths[1:]):
        last = _find_last_seq(path) if following is None else parse_first_seq(following) - 1
        summaries.append(SegmentSummary(path, parse_first_seq(path), last, path.stat().st_size))
    return summaries


def fetch_progress(folder: Path) -> ShippingProgress:
    """Return the progress of shipping from the disk, which is a second behind. Reads the last segments only."""
    paths = list_segments(folder)
    position = fetch_position(folder)
    passed, most = position or (guess_position(paths), 0)
    for path in reversed(paths):
        last = _find_last_batch(path)
        if last is not None:
            batch, counted = last
            return ShippingProgress(passed.seq, max(most, passed.seq), batch.last, (counted - passed.counted) % MODULUS)
    return ShippingProgress(passed.seq, max(most, passed.seq), passed.seq, 0)


def find_batch(folder: Path, seq: int) -> Batch | None:
    """Read one batch of a spool; None if it is not there, or cannot be read."""
    for path in reversed(list_segments(folder)):
        if parse_first_seq(path) <= seq:
            return next((batch for batch in _read_batches(path) if batch.seq <= seq <= batch.last), None)
    return None


def sum_unshipped(folder: Path, bytes_max: int | None = None) -> dict[str, int] | None:
    """Sum the batches of a spool that the collector lacks, by meter, as far as they can be read.

    None if that would mean to read more than `bytes_max`.
    """
    watermark = fetch_progress(folder).watermark
    totals: dict[str, int] = {}
    paths = list_segments(folder)
    after = [
        path
        for path, following in zip_longest(paths, paths[1:])
        if following is None or parse_first_seq(following) > watermark + 1
    ]
    if bytes_max is not None and sum(path.stat().st_size for path in after) > bytes_max:
        return None
    for path in after:
        for batch in _read_batches(path):
            if batch.seq > watermark:
                for _, meter, _, value, *_ in batch.rows:
                    totals[meter] = totals.get(meter, 0) + value
    return totals


def _read_batches(path: Path) -> Iterator[Batch]:
    """Yield the batches of a segment that can be read."""
    for record in parse_records(path.read_bytes(), marked=False):
        if isinstance(record, Record):
            try:
                yield parse_batch(record.body)
            except InvalidBatchError:
                continue


def _find_last_seq(path: Path) -> int:
    """Find the last batch of a segment that can be read."""
    last = _find_last_batch(path)
    return parse_first_seq(path) - 1 if last is None else last[0].last


def _find_last_batch(path: Path) -> tuple[Batch, int] | None:
    """Find the last readable batch, and the sum of counts up to it."""
    for record in reversed(list(parse_records(path.read_bytes(), marked=False))):
        if isinstance(record, Record):
            try:
                return parse_batch(record.body), record.counted
            except InvalidBatchError:
                continue
    return None


def fetch_last_sealed(state: Path, folder: Path) -> int:
    """Find the last batch known to the tables in `folder`, or to the file of a residency's chain; 0 if there is none.

    Raises TableError.
    """
    if not (state / "control").exists():
        return LastSealed(state).fetch()
    control = Control.open(state / "control")
    files = []
    try:
        for number in list_generations(folder, USAGE):
            files.append(TableFile.open(folder / file_name(USAGE, number), kind=USAGE, instance=control.instance))
        return find_last_sealed(files)
    finally:
        for file in files:
            file.close()
        control.close()


def verify_spool(folder: Path, edge: str, sealed: int) -> SpoolVerdict:
    """Read everything: every checksum, every batch, and the order of batches.

    `edge` is the owner of the spool. `sealed` is the last batch that is known to have been sealed, read before this
    call.
    """
    position = fetch_position(folder)
    most = 0 if position is None else position[1]
    given, unread = fetch_discarded(folder), []
    batches = rows = 0
    problems: list[str] = []
    notes: list[str] = []
    # Damage since the last batch, which may turn out to be only a torn tail.
    torn: list[LocatedDamage] = []
    paths = list_segments(folder)
    # The first batch that must be there: removed ones had been acknowledged.
    begins = parse_first_seq(paths[0]) if paths else 1
    if position is not None:
        begins = min(begins, most + 1)
    # The number and hash that the next batch must have as its predecessor's; an unknown hash matches any.
    expected, prev = 0, FIRST
    for place, one in _read_records(folder):
        if isinstance(one, Damage):
            torn.append(LocatedDamage(place, one))
            prev = ""
            continue
        try:
            batch = parse_batch(one.body)
        except InvalidBatchError as error:
            torn.append(LocatedDamage(place, Damage(one.offset, one.offset + one.size, f"holds no batch: it {error}")))
            prev = ""
            continue
        first = expected or begins
        is_given = first < batch.seq and _are_discarded(given, first, batch.seq - 1)
        if is_given:
            notes += [f"{damaged}: given up" for damaged in torn]
            faults = _find_faults(batch, edge, batch.seq, "", most)
        else:
            problems += map(str, torn)
            faults = _find_faults(batch, edge, expected, prev, most)
            if first < batch.seq:
                unread.append(DiscardedRange(first, batch.seq - 1, _describe_damage(torn)))
        problems += [f"{place}:{one.offset}: batch {batch.seq} {why}" for why in faults]
        torn.clear()
        batches, rows = batches + 1, rows + len(batch.rows)
        expected, prev = batch.last + 1, compute_digest(one.body)
    there = max(0, expected - 1)
    if max(sealed, most) > there:
        problems += map(str, torn)
        problems.append(f"{folder}: batch {max(sealed, most)} was sealed, and {there} is the last one here")
    else:
        notes += [f"{damaged}: nothing was sealed there, a start cuts it off" for damaged in torn]
    return SpoolVerdict(batches, rows, tuple(problems), tuple(notes), tuple(unread))


def _are_discarded(given: tuple[DiscardedRange, ...], first: int, last: int) -> bool:
    """Return whether all of these batches were discarded."""
    while first <= last:
        ends = [interval.last for interval in given if interval.first <= first <= interval.last]
        if not ends:
            return False
        first = max(ends) + 1
    return True


def _describe_damage(torn: list[LocatedDamage]) -> str:
    """Describe damaged batches for the collector."""
    text = "; ".join(f"{place.path.name}:{place.damage.offset}: {place.damage.why}" for place in torn)
    return (
        "".join(character if character.isprintable() else " " for character in text[:WHY_CHARACTERS_MAX])
        or "missing in the spool"
    )


def _read_records(folder: Path) -> Iterator[tuple[Path, Record | Damage]]:
    for path in list_segments(folder):
        for record in parse_records(path.read_bytes()):
            yield path, record


def _find_faults(batch: Batch, edge: str, expected: int, prev: str, most: int) -> Iterator[str]:
    """Find the faults of a batch at the place of `expected`, whose predecessor has the hash `prev` (empty: any).

    `most` is the last batch that was ever acknowledged.
    """
    if batch.edge != edge:
        yield f"is of {batch.edge}, and the spool of {edge}"
    if not expected:
        # Batches before the first one here were removed after they had been acknowledged.
        if batch.seq - 1 > most:
            yield f"is the first one here, and only those up to {most} were acknowledged"
        elif batch.seq == 1 and batch.prev != FIRST:
            yield "is the first one, and names one before it"
    elif batch.seq != expected:
        yield f"is where batch {expected} should be"
    elif prev and batch.prev != prev:
        yield "does not follow the one before it: the hashes differ"
