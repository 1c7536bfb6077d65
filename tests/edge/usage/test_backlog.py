"""The backlog reads unshipped batches from the spool and replaces discarded batches with gaps."""

import os
from pathlib import Path

import pytest

from edgeproxy.edge.usage import backlog
from edgeproxy.edge.usage.audit import verify_spool
from edgeproxy.edge.usage.backlog import REMOVED, Backlog, find_position
from edgeproxy.edge.usage.segment import HEAD, pack_record
from edgeproxy.edge.usage.spool import (
    DISCARDED,
    WATERMARK,
    DamagedSpoolError,
    DiscardedRange,
    Spool,
    fetch_discarded,
    guess_position,
    list_segments,
    record_discarded,
)
from edgeproxy.wire.batch import Gap
from loadtest.testbed.sealing import NOW, Faulty, acknowledge
from tests.edge.usage.peer import EDGE, append


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """A spool with segments of three batches."""
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 480)
    return Spool.open(tmp_path / "spool")


def seqs(spool: Spool, after: int = 0) -> list[tuple[int, int]]:
    """Return the first and the last number of each batch or gap in the backlog."""
    return [(batch.seq, batch.last) for batch, *_ in Backlog(spool, after)]


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def reopened(spool: Spool) -> Spool:
    spool.close()
    return Spool.open(spool.folder)


def test_a_parcel_carries_the_position_after_its_batch(spool: Spool) -> None:
    append(spool, 5)
    assert [parcel.passed for parcel in Backlog(spool, 0)] == [
        (seq, sum(range(seq + 1)), int(NOW) + seq + 1) for seq in range(1, 6)
    ]
    assert [find_position(spool, seq) for seq in (0, 3, 5)] == [
        (0, 0, int(NOW) + 1),
        (3, 6, int(NOW) + 4),
        (5, 15, int(NOW) + 6),
    ]


def test_backlog_skips_a_record_that_is_still_being_written(spool: Spool) -> None:
    append(spool, 2)
    (path,) = list_segments(spool.folder)
    waiting = Backlog(spool, 0)
    with path.open("ab") as file:
        file.write(b"half a rec")
    assert len(waiting.read_parcels()) == 2
    # A segment whose first record is incomplete is not read either.
    (spool.folder / "0000000003.seg").write_bytes(HEAD + b"half")
    assert waiting.read_parcels() == []


def test_read_ahead_is_bounded_in_bytes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = append(spool, 5)
    monkeypatch.setattr(backlog, "READ_AHEAD_BYTES_MAX", len(bodies[0]) + 1)
    waiting = Backlog(spool, 0)
    assert [len(waiting.read_parcels()) for _ in range(4)] == [2, 2, 1, 0]


def test_missing_unacknowledged_batch_is_damage(spool: Spool) -> None:
    append(spool, 11)
    acknowledge(spool, 2)
    first, second, *_ = list_segments(spool.folder)
    second.unlink()
    with pytest.raises(DamagedSpoolError, match=r"0000000007.seg:16: batch 4 is missing"):
        seqs(spool, 3)
    first.unlink()
    # Batches 1 and 2 were acknowledged, so their absence is a gap. Batch 3 was not, so its absence is damage.
    waiting = Backlog(spool, 0)
    assert [parcel.batch.gap for parcel in waiting.read_parcels()] == [Gap(1, 2, REMOVED)]
    for _ in range(2):
        with pytest.raises(DamagedSpoolError, match="batch 3 is missing"):
            waiting.read_parcels()
    for path in list_segments(spool.folder):
        path.unlink()
    with pytest.raises(DamagedSpoolError, match="spool: batch 3 is missing"):
        seqs(spool, 2)


def test_damage_is_raised_on_each_read_until_it_is_discarded(spool: Spool) -> None:
    append(spool, 8)
    _, second, _ = list_segments(spool.folder)
    flip(second, 100)
    waiting = Backlog(spool, 0)
    assert [parcel.batch.seq for parcel in waiting.read_parcels()] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(DamagedSpoolError, match=f"{second}:16: has another checksum"):
            waiting.read_parcels()
    record_discarded(spool.folder, (DiscardedRange(4, 4, "torn"),))
    given, *others = waiting.read_parcels()
    assert given.batch.gap == Gap(4, 4, "torn")
    assert given.passed.counted == 1 + 2 + 3 + 4
    assert [parcel.batch.seq for parcel in others] == [5, 6, 7, 8]
    # Once a discarded batch is readable again, the backlog ships it unchanged.
    flip(second, 100)
    assert seqs(spool) == [(seq, seq) for seq in range(1, 9)]


def test_backlog_replaces_only_batches_recorded_as_discarded(spool: Spool) -> None:
    append(spool, 8)
    _, second, third = list_segments(spool.folder)
    second.unlink()
    record_discarded(spool.folder, (DiscardedRange(4, 5, "one"),))
    waiting = Backlog(spool, 3)
    assert [parcel.batch.gap for parcel in waiting.read_parcels()] == [Gap(4, 5, "one")]
    with pytest.raises(DamagedSpoolError, match="batch 6 is missing"):
        waiting.read_parcels()
    record_discarded(spool.folder, (DiscardedRange(6, 99, "two"),))
    assert [parcel.batch.gap for parcel in waiting.read_parcels()] == [Gap(6, 6, "two"), None, None]
    assert fetch_discarded(spool.folder) == ((4, 5, "one"), (6, 99, "two"))
    flip(third, 30)
    assert seqs(spool, 3) == [(4, 5), (6, 7), (8, 8)]


def test_damage_in_the_last_batch_is_raised(spool: Spool) -> None:
    append(spool, 2)
    (path,) = list_segments(spool.folder)
    flip(path, spool.size - 3)
    waiting = Backlog(spool, 0)
    assert len(waiting.read_parcels()) == 1
    with pytest.raises(DamagedSpoolError, match="has another checksum"):
        waiting.read_parcels()
    assert find_position(spool, 1) == spool.passed._replace(seq=1)


def test_an_unreadable_list_of_discarded_ranges_is_damage(spool: Spool) -> None:
    append(spool, 8)
    list_segments(spool.folder)[1].unlink()
    (spool.folder / DISCARDED).write_bytes(b"[[1]]")
    with pytest.raises(DamagedSpoolError, match=r"discarded.json is damaged .*remove it, and discard again"):
        seqs(spool, 3)


def test_audit_lists_unreadable_and_missing_batches(spool: Spool) -> None:
    append(spool, 12)
    first, second, third, _ = list_segments(spool.folder)
    flip(first, 20)
    flip(second, 20)
    third.unlink()
    found = verify_spool(spool.folder, EDGE, 12)
    assert [(first, last) for first, last, _ in found.unread] == [(1, 1), (4, 4), (7, 9)]
    why = [given.why for given in found.unread]
    assert why[0] == "0000000001.seg:16: has another checksum than it should"
    assert why[2] == "missing in the spool"
    record_discarded(spool.folder, found.unread)
    found = verify_spool(spool.folder, EDGE, 12)
    assert (found.problems, found.unread) == ((), ())
    assert all(note.endswith(": given up") for note in found.notes)
    assert seqs(spool) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 9), (10, 10), (11, 11), (12, 12)]
    assert verify_spool(spool.folder, "edge-2", 12).problems
    # The absence of acknowledged segments is not damage.
    acknowledge(spool, 6)
    first.unlink()
    second.unlink()
    assert verify_spool(spool.folder, EDGE, 12).problems == ()
    (spool.folder / DISCARDED).unlink()
    assert verify_spool(spool.folder, EDGE, 12).unread == ((7, 9, "missing in the spool"),)


def test_pending_totals_survive_reopening_and_acknowledgements(spool: Spool) -> None:
    assert spool.pending == (0, 0, None)
    append(spool, 5)
    assert spool.pending == (5, 15, int(NOW) + 1)
    assert reopened(spool).pending == (5, 15, int(NOW) + 1)
    acknowledge(spool, 2)
    assert spool.pending == (3, 12, int(NOW) + 3)
    spool = reopened(spool)
    append(spool, 3)
    assert spool.pending == (6, 33, int(NOW) + 3)
    acknowledge(spool, 8)
    assert spool.pending == (0, 0, None)
    spool = reopened(spool)
    assert spool.pending == (0, 0, None)
    append(spool)
    assert spool.pending == (1, 9, int(NOW) + 9)
    acknowledge(spool, 4)
    assert spool.pending == (5, 35, int(NOW) + 5)
    assert reopened(spool).pending == (5, 35, int(NOW) + 5)


def test_without_a_watermark_missing_segments_count_as_acknowledged(spool: Spool) -> None:
    append(spool, 11)
    acknowledge(spool, 8)
    spool.prune(NOW, retention_bytes=0)
    (spool.folder / WATERMARK).write_bytes(b"{")
    spool = reopened(spool)
    assert (spool.watermark, spool.most) == (6, 6)
    assert spool.pending == (5, 7 + 8 + 9 + 10 + 11, int(NOW) + 7)
    # Pruning waits until a new watermark is on disk.
    acknowledge(spool, 11)
    assert len(spool.prune(NOW, retention_bytes=0)) == 1
    # If no batch of the segment can be parsed, the segment's name alone gives the position.
    path = list_segments(spool.folder)[0]
    path.write_bytes(HEAD + pack_record(b"{}", ()) + b"junk")
    assert guess_position([path]) == (9, 0, 0)
    # Opening the spool deletes a watermark file whose writing was interrupted.
    left = spool.folder / f"{WATERMARK}.99.tmp"
    left.write_bytes(b"{")
    path.unlink()
    (spool.folder / WATERMARK).unlink()
    reopened(spool)
    assert list(spool.folder.iterdir()) == []


def test_a_watermark_that_goes_back_is_saved_at_once_and_limits_pruning(spool: Spool) -> None:
    append(spool, 11)
    acknowledge(spool, 11)
    spool.acknowledge(find_position(spool, 4))
    assert not spool.is_unsaved
    for there in (spool, reopened(spool)):
        assert (there.watermark, there.most) == (4, 11)
        assert [path.name for path in there.prune(NOW, retention_bytes=0)] == (
            ["0000000001.seg"] if there is spool else []
        )
    # A watermark that goes forward is written by `save`. Nothing is pruned before that.
    there.acknowledge(find_position(there, 8))
    assert there.is_unsaved
    assert there.prune(NOW, retention_bytes=0) == ()
    there.save()
    assert len(there.prune(NOW, retention_bytes=0)) == 1


def test_a_watermark_that_cannot_be_written_does_not_go_back(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    append(spool, 3)
    acknowledge(spool, 3)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeproxy.edge.usage.spool.write_whole", fail)
    with pytest.raises(OSError, match="No space"):
        acknowledge(spool, 1)
    assert spool.watermark == 3


def test_pruning_keeps_the_last_batch_when_the_next_segment_is_empty(spool: Spool) -> None:
    disk = Faulty()
    spool.close()
    spool = Spool.open(spool.folder, disk=disk)
    append(spool, 3)
    acknowledge(spool, 3)
    disk.acts, disk.way = 3, "full"
    with pytest.raises(OSError, match="No space"):
        append(spool)
    assert len(list_segments(spool.folder)) == 2
    assert spool.prune(NOW, retention_bytes=0) == ()
    assert seqs(spool, 2) == [(3, 3)]
    spool = reopened(spool)
    assert spool.prune(NOW, retention_bytes=0) == ()
    append(spool)
    assert seqs(spool, 2) == [(3, 3), (4, 4)]
    acknowledge(spool, 4)
    assert len(spool.prune(NOW, retention_bytes=0)) == 1


def test_pruning_limits_acknowledged_segments_to_a_share_of_the_disk(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(spool, 11)
    acknowledge(spool, 11)
    assert spool.prune(NOW) == ()
    there = os.statvfs(spool.folder)
    small = os.statvfs_result([there.f_bsize, 1, 4, *list(there)[3:]])
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    assert len(spool.prune(NOW)) == 3
