import os
from pathlib import Path

import pytest

from edgeproxy.counters.base import Base
from edgeproxy.counters.file import TableError
from edgeproxy.counters.index import MOST_ROWS
from edgeproxy.counters.setup import NEARLY_FULL, file_name, generations, layouts
from edgeproxy.counters.store import Store
from tests.counters.conftest import Supervise

FIRST = ["addresses.1.tbl", "connections.1.tbl", "metrics.1.tbl", "people.1.tbl", "usage.1.tbl"]


def tables(state: Path) -> list[str]:
    return sorted(path.name for path in state.glob("*.tbl*"))


def numbers(store: Store) -> list[int]:
    return [store.control.generation(kind) for kind in ("people", "addresses", "usage", "metrics")]


def test_what_is_missing_is_made(supervise: Supervise, state: Path) -> None:
    store = supervise()
    assert tables(state) == FIRST
    assert numbers(store) == [1, 1, 1, 1]
    assert store.people.layout == layouts(2, 40, 20)[0]
    assert state.stat().st_mode & 0o777 == 0o700


def test_what_fits_is_kept(supervise: Supervise, state: Path) -> None:
    supervise()
    supervise()
    assert tables(state) == FIRST


def test_another_layout_is_another_file_and_only_that(supervise: Supervise, state: Path) -> None:
    supervise()
    assert numbers(supervise(addresses=30)) == [1, 2, 1, 1]
    assert numbers(supervise(workers=3, addresses=30)) == [2, 3, 2, 2]
    assert "addresses.1.tbl" in tables(state)


def test_another_boot_is_new_files_of_limits_only(supervise: Supervise) -> None:
    supervise()
    assert numbers(supervise(boot="two")) == [2, 2, 1, 1]
    assert numbers(supervise(boot="two")) == [2, 2, 1, 1]


def test_a_file_that_was_removed_is_made_again_under_a_new_name(supervise: Supervise, state: Path) -> None:
    supervise()
    (state / "people.1.tbl").unlink()
    assert numbers(supervise()) == [2, 1, 1, 1]


def test_no_name_that_was_folded_is_used_again(supervise: Supervise, state: Path) -> None:
    state.mkdir()
    Base().fold("usage.7.tbl", "usage", {}, present=frozenset()).write(state / "base.json")
    assert numbers(supervise()) == [1, 1, 8, 1]


def test_tables_without_their_control_file_are_not_taken_for_nothing(supervise: Supervise, state: Path) -> None:
    supervise()
    (state / "control").unlink()
    with pytest.raises(TableError, match="control: is missing, and there are tables in"):
        supervise()
    assert tables(state) == FIRST


def test_the_tables_of_another_state_are_refused(supervise: Supervise, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    Store.prepare(tmp_path / "one", workers=1, people=5, addresses=5, tables_dir=shared).close()
    with pytest.raises(TableError, match="control: is missing, and there are tables in"):
        Store.prepare(tmp_path / "two", workers=1, people=5, addresses=5, tables_dir=shared)
    Store.prepare(tmp_path / "two", workers=1, people=5, addresses=5).close()
    with pytest.raises(TableError, match=r"people.1.tbl: belongs to another state directory"):
        Store.prepare(tmp_path / "two", workers=1, people=5, addresses=5, tables_dir=shared)


def test_what_a_setup_left_that_was_cut_off_is_removed(supervise: Supervise, state: Path) -> None:
    supervise()
    os.link(state / "people.1.tbl", state / "people.2.tbl")
    (state / "usage.2.tbl.123.tmp").write_bytes(b"half")
    (state / "people.notes.tbl").write_bytes(b"somebody's")
    assert numbers(supervise()) == [1, 1, 1, 1]
    assert tables(state) == sorted([*FIRST, "people.notes.tbl"])


def test_where_one_cannot_be_made_none_is(supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervise(workers=1)
    allocate = os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if "usage" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TableError, match=r"usage.2.tbl: cannot be made: No space left on device \(0 MiB are needed\)"):
        supervise(workers=2)
    assert tables(state) == FIRST
    monkeypatch.undo()
    assert numbers(supervise(workers=1)) == [1, 1, 1, 1]
    assert numbers(supervise(workers=2)) == [2, 2, 2, 2]


def test_where_limits_cannot_be_carried_nothing_is_left(
    supervise: Supervise, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(workers=1)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("edgeproxy.counters.carry.Carry.slice", fail)
    with pytest.raises(OSError, match="Input/output error"):
        supervise(workers=2)
    assert tables(state) == FIRST


def test_more_rows_than_can_be_numbered_are_refused(supervise: Supervise, state: Path) -> None:
    with pytest.raises(TableError, match=f"{MOST_ROWS + 1} rows are too many for people: {MOST_ROWS} is the most"):
        supervise(people=MOST_ROWS + 1)
    assert tables(state) == []


def test_a_nearly_full_file_of_usage_is_followed_by_an_empty_one(supervise: Supervise, work: object) -> None:
    supervise(people=10)
    assert callable(work)
    worker = work()
    kept = [worker.billing.counter(f"customer-{number}", "requests", "v1") for number in range(8)]
    for counter in kept:
        counter.add(3)
    assert len(kept) >= NEARLY_FULL * 10
    store = supervise(people=10)
    assert numbers(store) == [1, 1, 2, 1]
    assert sum(total for *_, total in store.usage_totals()) == 24


def test_files_are_known_by_their_numbers(tmp_path: Path) -> None:
    for name in ("people.2.tbl", "people.10.tbl", "people.x.tbl", "people.3.tbl.1.tmp", "people.tbl", "usage.1.tbl"):
        (tmp_path / name).touch()
    assert generations(tmp_path, "people") == [2, 10]
    assert file_name("people", 10) == "people.10.tbl"
