import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.edge.counters.locks import FileLock
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.identity import (
    IdentityError,
    adopt_identity,
    discard_identity,
    list_set_aside,
    load_identity,
    set_aside_if_moved,
)
from edgeproxy.edge.usage.seal import Sealer
from loadtest.testbed.sealing import NOW, Killed, batches, count, sums

ACME = ("acme", "requests", "v1")


class Home:
    """A state directory, and a directory for its tables. Both may be one directory."""

    def __init__(self, state: Path, folder: Path) -> None:
        self.state = state
        self.folder = folder
        self.now = NOW

    def serve(self, counted: int = 1, sealed: bool = True) -> str:
        """Be an edge for a while; returns its id."""
        set_aside_if_moved(self.state, self.folder)
        tables = None if self.folder == self.state else self.folder
        store = Store.prepare(
            self.state, workers=1, customers=40, addresses=8, end_users=8, tables_dir=tables, boot="one", offset=5e7
        )
        assert store.identity.try_acquire()
        sealer = Sealer.open(store, "here", self.now)
        worker = Store.join(self.state, tables_dir=tables)
        count(worker, ACME, counted)
        self.now += 5
        if sealed:
            sealer.seal(self.now)
        sealer.close()
        worker.close()
        store.close()
        return sealer.identity.id

    def copied(self, to: str) -> "Home":
        """A copy of it all."""
        state = self.state.with_name(to)
        shutil.copytree(self.state, state)
        if self.folder == self.state:
            return Home(state, state)
        shutil.copytree(self.folder, self.folder.with_name(f"{to}-tables"))
        return Home(state, self.folder.with_name(f"{to}-tables"))

    @property
    def seqs(self) -> list[int]:
        return [batch.seq for batch in batches(self.state / "spool")]

    def names(self) -> list[str]:
        return [path.name for path in list_set_aside(self.state)]


PLACES = ("one directory", "tables elsewhere")


@pytest.fixture(params=PLACES)
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Home:
    state = tmp_path / "home"
    return Home(state, state if request.param == PLACES[0] else tmp_path / "home-tables")


def test_copied_state_gets_a_new_identity_and_quarantines_the_copy(home: Home) -> None:
    first = home.serve(5)
    home.serve(7, sealed=False)
    copy = home.copied("copy")
    second = copy.serve(3)
    assert second != first
    # It has none of the counts that the other one goes on with.
    assert sums(copy.state / "spool") == {ACME: 3}
    assert copy.names() == ["aside.1"]
    assert sums(copy.state / "aside.1" / "spool") == {ACME: 5}
    assert home.serve(1) == first
    assert sums(home.state / "spool") == {ACME: 13}
    assert copy.serve() == second
    assert copy.names() == ["aside.1"]


def test_changed_machine_id_creates_a_new_identity(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = tmp_path / "machine-id"
    monkeypatch.setattr(identity, "MACHINE", machine)
    first = home.serve()
    assert home.serve() == first
    machine.write_text("0123\n")
    second = home.serve()
    assert second != first
    assert home.serve() == second
    machine.write_text("4567\n")
    assert home.serve() not in (first, second)
    assert home.names() == ["aside.1", "aside.2"]


def test_a_moved_directory_is_adopted_before_it_serves(home: Home) -> None:
    first = home.serve(2)
    moved = home.copied("moved")
    adopted, _, put = adopt_identity(moved.state, moved.folder)
    assert (adopted.id, put) == (first, None)
    assert moved.serve(3) == first
    assert (moved.seqs, moved.names()) == ([1, 2], [])
    assert sums(moved.state / "spool") == {ACME: 5}


def test_adopting_a_quarantined_identity_keeps_the_current_one(home: Home) -> None:
    first = home.serve(2)
    home.serve(7, sealed=False)
    moved = home.copied("moved")
    second = moved.serve(40)
    adopted, _, put = adopt_identity(moved.state, moved.folder)
    assert (adopted.id, put) == (first, moved.state / "aside.2")
    assert moved.names() == ["aside.2"]
    assert moved.serve(1) == first
    assert sums(moved.state / "spool") == {ACME: 10}
    assert [path.name for path in moved.folder.glob("aside.1")] == []
    # And back.
    adopted, _, put = adopt_identity(moved.state, moved.folder, "aside.2")
    assert (adopted.id, put) == (second, moved.state / "aside.3")
    assert moved.serve(2) == second
    assert sums(moved.state / "spool") == {ACME: 42}


def test_adopt_and_discard_need_a_name_among_several_directories(home: Home) -> None:
    home.serve()
    moved = home.copied("moved")
    moved.serve()
    again = moved.copied("again")
    again.serve()
    assert again.names() == ["aside.1", "aside.2"]
    for act in (adopt_identity, discard_identity):
        with pytest.raises(IdentityError, match=r"say which one: aside.1, aside.2"):
            act(again.state, again.folder)
        with pytest.raises(IdentityError, match=r"there is no aside.7 in .*: there are aside.1, aside.2"):
            act(again.state, again.folder, "aside.7")
    assert discard_identity(again.state, again.folder, "aside.1").name == "aside.1"
    assert again.names() == ["aside.2"]


def test_identity_changes_are_refused_while_an_edge_runs(home: Home) -> None:
    home.serve()
    moved = home.copied("moved")
    store = Store.prepare(moved.state, workers=1, customers=40, addresses=8, end_users=8, boot="one", offset=5e7,
                          tables_dir=None if moved.folder == moved.state else moved.folder)  # fmt: skip
    worker = Store.join(moved.state, tables_dir=None if moved.folder == moved.state else moved.folder)
    acts: tuple[Callable[[Path, Path], object], ...] = (set_aside_if_moved, adopt_identity, discard_identity)
    for act in acts:
        with pytest.raises(IdentityError, match="workers of an edge use"):
            act(moved.state, moved.folder)
    lock = FileLock(moved.state / "identity.lock")
    assert lock.try_acquire()
    assert set_aside_if_moved(moved.state, moved.folder) is None
    for act in acts[1:]:
        with pytest.raises(IdentityError, match="an edge uses"):
            act(moved.state, moved.folder)
    lock.release()
    worker.close()
    store.close()
    assert set_aside_if_moved(moved.state, moved.folder) == moved.state / "aside.1"


def test_counts_without_an_identity_are_not_set_aside(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path / "home")
    home.serve()
    moved = home.copied("moved")
    moved.serve()
    (moved.state / "identity.json").unlink()
    with pytest.raises(IdentityError, match="has counts without an identity"):
        adopt_identity(moved.state, moved.folder)


def test_missing_state_directory_is_an_error_for_adopt_and_discard(tmp_path: Path) -> None:
    assert set_aside_if_moved(tmp_path / "no", tmp_path / "no") is None
    assert list_set_aside(tmp_path / "no") == []
    for act in (adopt_identity, discard_identity):
        with pytest.raises(IdentityError, match="there is no state directory"):
            act(tmp_path / "no", tmp_path / "no")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is damaged"), (b"{}", "is damaged"), (b'{"version":2}', "has version 2, and this program reads 1")],
)
def test_unreadable_identity_is_reported(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(IdentityError, match=why):
        load_identity(tmp_path)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> bool:
    """Return whether `act` was killed at this step: before its nth renaming or removal."""
    left = step
    with monkeypatch.context() as patched:
        for module, function in ((os, "rename"), (os, "replace"), (os, "unlink"), (shutil, "rmtree")):
            real = getattr(module, function)

            def counted(*arguments: object, real: Callable[..., object] = real, **how: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed
                return real(*arguments, **how)

            patched.setattr(module, function, counted)
        try:
            act()
        except Killed:
            return True
    return False


def test_an_adoption_that_an_earlier_version_began_is_ended(home: Home) -> None:
    first = home.serve()
    moved = home.copied("moved")
    moved.serve()
    (moved.state / "adopting.json").write_text('{"name":"aside.1","aside":"aside.2"}\n')
    adopted, _, put = adopt_identity(moved.state, moved.folder)
    assert (adopted.id, put) == (first, moved.state / "aside.2")


@pytest.mark.parametrize(("home", "then"), [(PLACES[0], "serves"), (PLACES[1], "serves"), (PLACES[1], "adopts")],
                         indirect=["home"])  # fmt: skip
def test_kill_at_any_step_of_adopting_loses_no_data(then: str, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    first = home.serve(2)
    home.serve(7, sealed=False)
    step = 0
    was_killed = True
    while was_killed:
        step += 1
        moved = home.copied(f"moved-{step}")
        second = moved.serve(40)
        was_killed = killed_at(step, monkeypatch, lambda moved=moved: adopt_identity(moved.state, moved.folder))  # type: ignore[misc]
        if then == "adopts" and was_killed:
            ended = adopt_identity(moved.state, moved.folder, "aside.1")
            assert (ended.identity.id, ended.put) == (first, moved.state / "aside.2")
        served = moved.serve(1)
        # Whichever of the two it is, it is whole, and so is the other one.
        assert served in (first, second)
        counted = {first: 10, second: 41}[served]
        assert sums(moved.state / "spool") == {ACME: counted}
        (put,) = list_set_aside(moved.state)
        other = load_identity(put)
        assert other is not None
        assert other.id == {first: second, second: first}[served]
        adopt_identity(moved.state, moved.folder)
        moved.serve(100)
        assert sums(moved.state / "spool") == {ACME: 140 if other.id == second else 109}
    assert step > 8


def test_killed_at_any_step_of_setting_aside_the_next_start_ends_it(
    monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    first = home.serve(2)
    home.serve(7, sealed=False)
    step = 0
    was_killed = True
    while was_killed:
        step += 1
        copy = home.copied(f"copy-{step}")
        was_killed = killed_at(step, monkeypatch, lambda copy=copy: set_aside_if_moved(copy.state, copy.folder))  # type: ignore[misc]
        assert copy.serve(3) != first
        assert sums(copy.state / "spool") == {ACME: 3}
        assert copy.names() == ["aside.1"]
        assert adopt_identity(copy.state, copy.folder).identity.id == first
        copy.serve(1)
        assert sums(copy.state / "spool") == {ACME: 10}
    assert step > 6
