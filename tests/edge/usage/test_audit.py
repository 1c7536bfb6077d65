from pathlib import Path

import pytest

from edgeproxy.edge.usage.audit import fetch_last_sealed, summarize_segments, verify_spool
from edgeproxy.edge.usage.spool import Spool, list_segments
from edgeproxy.wire.batch import FIRST, Batch, format_batch
from loadtest.testbed.sealing import acknowledge

ROWS = (("acme", "requests", "v1", 1),)


def batch(seq: int, prev: str) -> Batch:
    return Batch("edge-1", "here", seq, 0, 0, prev, ROWS)


def append(spool: Spool, seq: int, prev: str | None = None, content: bytes | None = None) -> None:
    """Append this batch, or another content, whatever is there."""
    follows = FIRST if spool.last is None else spool.last.digest
    one = batch(seq, prev or follows)
    spool.append(one, format_batch(one) if content is None else content, ())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def problems(spool: Spool) -> list[str]:
    """Return the problems of a spool, without their places."""
    (path,) = list_segments(spool.folder)
    found = verify_spool(spool.folder, "edge-1", 0).problems
    assert all(problem.startswith(f"{path}:") for problem in found)
    return [problem.split(": ", 1)[1] for problem in found]


def test_each_batch_has_to_follow_the_one_before(spool: Spool) -> None:
    append(spool, 1)
    append(spool, 2, "f" * 64)
    append(spool, 4)
    append(spool, 4)
    assert problems(spool) == [
        "batch 2 does not follow the one before it: the hashes differ",
        "batch 4 is where batch 3 should be",
        "batch 4 is where batch 5 should be",
    ]


def test_the_first_batch_follows_none(spool: Spool) -> None:
    append(spool, 1, "f" * 64)
    assert problems(spool) == ["batch 1 is the first one, and names one before it"]


def test_audit_accepts_missing_acknowledged_batches(spool: Spool) -> None:
    append(spool, 7, "f" * 64)
    assert problems(spool) == ["batch 7 is the first one here, and only those up to 0 were acknowledged"]
    acknowledge(spool, 6)
    assert problems(spool) == []


def test_verify_reports_a_record_without_a_batch(spool: Spool) -> None:
    append(spool, 1)
    append(spool, 2, content=b"{}")
    append(spool, 3)
    assert problems(spool)[0].startswith("holds no batch: it has no edge; ")
    assert problems(spool)[1:] == ["batch 3 is where batch 2 should be"]
    append(spool, 4, content=b"{}")
    assert summarize_segments(spool.folder)[0].last == 3


def test_a_segment_that_was_just_begun_has_no_batch_yet(spool: Spool) -> None:
    spool.folder.joinpath("0000000005.seg").write_bytes(b"")
    (one,) = summarize_segments(spool.folder)
    assert (one.first, one.last) == (5, 4)


def test_an_edge_that_has_sealed_nothing_yet_has_no_segments(tmp_path: Path) -> None:
    assert summarize_segments(tmp_path) == []


def test_without_tables_nothing_is_known_to_be_sealed(tmp_path: Path) -> None:
    assert fetch_last_sealed(tmp_path, tmp_path) == 0
