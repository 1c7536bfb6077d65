"""The ids of stored answers: each is claimed once, by whichever worker comes first."""

import os
from pathlib import Path

import pytest

from edgeproxy.edge.counters import counted_ids
from edgeproxy.edge.counters.counted_ids import MAP_BYTES, WAYS, CountedIds, _locate


def test_id_is_claimed_once_by_all_workers_and_after_a_restart(tmp_path: Path) -> None:
    one, other = CountedIds(tmp_path / "ids"), CountedIds(tmp_path / "ids")
    keys = [(b"acme", b"resp_%d" % number) for number in range(500)]
    assert [ids.claim(key) for key in keys for ids in (one, other)] == [True, False] * 500
    assert all(key in CountedIds(tmp_path / "ids") for key in keys)
    assert (b"umbrella", b"resp_1") not in one
    assert (b"acmeresp_1", b"") not in one
    assert (tmp_path / "ids").stat().st_size == MAP_BYTES


def test_full_set_forgets_its_oldest_id(tmp_path: Path) -> None:
    ids = CountedIds(tmp_path / "ids")
    place, _ = _locate((b"0",))
    same = [(b"%d" % number,) for number in range(400_000) if _locate((b"%d" % number,))[0] == place][: WAYS + 1]
    assert [ids.claim(key) for key in same] == [True] * (WAYS + 1)
    assert [key in ids for key in same] == [False] + [True] * WAYS


def test_file_that_cannot_be_used_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        CountedIds(tmp_path / "nowhere" / "ids")


def test_map_that_cannot_be_made_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_ids, "MAP_BYTES", -1)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Invalid argument"):
        CountedIds(tmp_path / "ids")
    assert len(os.listdir("/proc/self/fd")) == before
