import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.usage.backlog import Backlog
from edgeproxy.edge.usage.segment import HEAD, Mark
from edgeproxy.edge.usage.spool import (
    BrokenSpoolError,
    DamagedSpoolError,
    Spool,
    fetch_watermark,
    list_segments,
    parse_first_seq,
)
from edgeproxy.wire.batch import Batch, format_batch
from loadtest.testbed.sealing import NOW, Faulty, Killed, acknowledge, batches

ROWS = (("acme", "requests", "v1", 1),)
MARKS = (Mark(1, 0, 0, 1),)
FULL = "No space left|Input/output error"


def append(spool: Spool, times: int = 1) -> list[bytes]:
    """Append so many batches; returns their bodies."""
    bodies = []
    for _ in range(times):
        seq, prev = (1, "0" * 64) if spool.last is None else (spool.last.seq + 1, spool.last.digest)
        batch = Batch("edge-1", "here", seq, int(NOW), int(NOW), prev, ROWS)
        spool.append(batch, format_batch(batch), MARKS)
        bodies.append(format_batch(batch))
    return bodies


def seqs(spool: Spool, after: int = 0) -> list[int]:
    return [batch.seq for batch, *_ in Backlog(spool, after)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of three records."""
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 480)


def reopened(spool: Spool, *, sealed: int = 0, disk: Faulty | None = None) -> Spool:
    spool.close()
    return Spool.open(spool.folder, sealed=sealed, disk=disk)


def test_unreadable_sealed_batch_is_no_torn_tail(folder: Path) -> None:
    spool = Spool.open(folder)
    append(spool, 3)
    (path,) = list_segments(folder)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-5] + b"X" + whole[-4:], whole[:40], b""):
        path.write_bytes(damaged)
        with pytest.raises(BrokenSpoolError, match="batch 3 was sealed, and "):
            reopened(spool, sealed=3)
        assert path.read_bytes() == damaged
    path.unlink()
    with pytest.raises(BrokenSpoolError, match="and none that can be read"):
        reopened(spool, sealed=3)
    folder.rmdir()
    with pytest.raises(BrokenSpoolError):
        reopened(spool, sealed=3)
    assert not folder.exists()


def test_acknowledged_batch_counts_as_sealed(folder: Path) -> None:
    spool = Spool.open(folder)
    append(spool, 2)
    acknowledge(spool, 2)
    assert (spool.pending, fetch_watermark(folder)) == ((0, 0, None), 2)
    (path,) = list_segments(folder)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenSpoolError):
        reopened(spool)


def test_damaged_record_in_the_middle_is_reported_and_not_skipped(folder: Path) -> None:
    spool = Spool.open(folder)
    append(spool, 4)
    (path,) = list_segments(folder)
    content = bytearray(path.read_bytes())
    hit = Spool.open(folder).recent[1]
    content[hit.offset + 30] ^= 1
    path.write_bytes(content)
    spool = reopened(spool, sealed=4)
    (damage,) = spool.damage
    assert str(damage) == f"{path}:{hit.offset}: has another checksum than it should ({hit.size} bytes)"
    # Sealing goes on behind the last one, shipping stops before it.
    append(spool)
    shipped = iter(Backlog(spool, 0))
    assert next(shipped)[0].seq == 1
    with pytest.raises(DamagedSpoolError, match=f"{path.name}:{hit.offset}: has another checksum"):
        next(shipped)


@pytest.mark.usefixtures("small")
def test_a_segment_that_was_just_begun_follows_the_one_before(folder: Path) -> None:
    spool = Spool.open(folder)
    append(spool, 3)
    last = spool.last
    for begun in (b"", HEAD[:5], HEAD, HEAD + b"half a record"):
        path = folder / "0000000004.seg"
        path.write_bytes(begun)
        spool = reopened(spool, sealed=3)
        assert (spool.last, spool.recent) == (last, ())
        assert path.read_bytes() == HEAD
        path.unlink()
    (folder / "0000000005.seg").write_bytes(b"")
    with pytest.raises(BrokenSpoolError, match="batch 4 was sealed, and 3 is the last one"):
        reopened(spool)


def test_a_disk_that_stays_full_costs_nothing_but_time(folder: Path) -> None:
    disk = Faulty()
    spool = Spool.open(folder, disk=disk)
    append(spool, 2)
    size = spool.size
    disk.full = True
    for _ in range(5):
        with pytest.raises(OSError, match=FULL):
            append(spool)
        assert spool.size == size
    disk.full = False
    append(spool)
    assert len(batches(folder)) == 3


def test_the_next_append_truncates_a_record_left_by_a_failed_sync(folder: Path) -> None:
    class Broke(Faulty):
        broke = False

        def sync(self, fd: int) -> None:
            if self.broke:
                raise OSError(5, "Input/output error")
            super().sync(fd)

        def truncate(self, fd: int, size: int) -> None:
            if self.broke:
                raise OSError(5, "Input/output error")
            super().truncate(fd, size)

    disk = Broke()
    spool = Spool.open(folder, disk=disk)
    append(spool)
    disk.broke = True
    for _ in range(2):
        with pytest.raises(OSError, match=FULL):
            append(spool)
    disk.broke = False
    append(spool)
    assert len(batches(folder)) == 2


@pytest.mark.parametrize("way", ["before", "torn", "after"])
@pytest.mark.parametrize("act", range(1, 12))
def test_killed_at_any_act_the_spool_goes_on(folder: Path, act: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 300)
    disk = Faulty(act, way)

    def go_on() -> None:
        spool = Spool.open(folder, disk=disk)
        append(spool, 2)
        spool = reopened(spool, disk=disk)
        append(spool, 3)

    with pytest.raises(Killed):
        go_on()
    there = Spool.open(folder)
    sealed = 0 if there.last is None else there.last.seq
    append(there, 3)
    assert [batch.seq for batch in batches(folder)] == list(range(1, sealed + 4))


@pytest.mark.usefixtures("small")
def test_acknowledged_segments_are_kept_until_retention_ends(folder: Path) -> None:
    spool = Spool.open(folder)
    append(spool, 11)
    paths = list_segments(folder)

    def left(prune: Callable[[], object]) -> list[int]:
        prune()
        return [parse_first_seq(path) for path in list_segments(folder)]

    now = paths[0].stat().st_mtime
    assert left(lambda: spool.prune(now + 1e9)) == [1, 4, 7, 10]
    acknowledge(spool, 8)
    os.utime(paths[0], (now - 100, now - 100))
    assert left(lambda: spool.prune(now, retention_seconds=101)) == [1, 4, 7, 10]
    assert left(lambda: spool.prune(now, retention_seconds=99)) == [4, 7, 10]
    assert left(lambda: spool.prune(now, retention_bytes=0)) == [7, 10]
    acknowledge(spool, 11)
    assert left(lambda: spool.prune(now, retention_bytes=0)) == [10]
    assert seqs(spool, 9) == [10, 11]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"seq":1}',
        b'{"seq":-1,"counted":0,"until":0,"most":0}',
        b'{"seq":true,"counted":0,"until":0,"most":0}',
    ],
)
def test_unreadable_watermark_counts_as_missing(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "watermark.json").write_bytes(content)
    assert fetch_watermark(folder) == 0


def test_a_last_record_without_a_batch_ends_the_spool(folder: Path) -> None:
    spool = Spool.open(folder)
    spool.append(Batch("edge-1", "here", 1, 0, 0, "0" * 64, ROWS), b"{}", MARKS)
    with pytest.raises(BrokenSpoolError, match="holds no batch"):
        reopened(spool)
    with pytest.raises(DamagedSpoolError, match=r"0000000001.seg:16: has no edge"):
        list(Backlog(spool, 0))
