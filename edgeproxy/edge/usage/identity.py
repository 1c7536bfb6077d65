"""The identity of an edge towards the collector: an id made once with its state directory, and valid only there.

    identity.json    {version, id, machine, inode, made_at}
    aside.N/         a quarantined state: its identity.json, spool, tables, base.json and control
    residency/NAME/  for each residency but the edge's own: an identity.json, a spool, quarantined state,
                     and `last-sealed`, the number of the last batch

If the directory is another one (another machine id, another inode: a copy, a moved volume, a restored backup), another
edge may continue with these counts. So everything is set aside, and the edge starts under a new identity. An edge that
ships no usage has no identity.json, but the hub knows it by the instance in its control file. That file has the place
of the directory, and an edge that shares limits with other hosts also sets a moved state aside. `adopt` continues with
a state that was set aside, `discard` deletes it. Nothing here runs while an edge uses the directory. If a process is
killed in the middle, the next one finishes its work: identity.json is moved last when a state is set aside, and a
separate file names the state being adopted.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import orjson

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import KINDS, TableFile, sync_folder, write_whole
from edgeproxy.edge.counters.locks import FileLock
from edgeproxy.edge.counters.setup import file_name, list_generations
from edgeproxy.edge.counters.table_files import IDENTITY_FILE

VERSION = 1
SPOOL = "spool"
ADOPTING = "adopting.json"
RESIDENCIES = "residency"
LAST_SEALED = "last-sealed"
MOVED = ("control", "base.json", SPOOL, RESIDENCIES)
"""Entries of a state, besides its tables and its identity."""
ASIDE = re.compile(r"aside\.([0-9]+)")
GONE = "discarded.tmp"
MACHINE = Path("/etc/machine-id")


class IdentityError(Exception):
    """The state directory is not in the required condition; the text for the operator gives the reason."""


class EdgeIdentity(NamedTuple):
    """An edge's id, and the place that it is valid for. `made_at` is Unix time."""

    id: str
    machine: str
    inode: int
    made_at: int


class Adoption(NamedTuple):
    """An adopted identity, the `name` of its former place, and the new place of the replaced state."""

    identity: EdgeIdentity
    name: str | None
    put: Path | None


class StateLocation(NamedTuple):
    """Identity of this directory, unlike a copy's. Without a machine id, as in a container, only the inode."""

    machine: str
    inode: int

    @classmethod
    def from_path(cls, state: Path) -> "StateLocation":
        """Describe the present directory."""
        try:
            machine = MACHINE.read_text().strip()
        except OSError:
            machine = ""
        return cls(machine, state.stat().st_ino)

    @property
    def digest(self) -> int:
        """64 bits that stand for the location."""
        return int.from_bytes(blake2b(f"{self.machine} {self.inode}".encode(), digest_size=8).digest(), "little")

    def matches(self, identity: EdgeIdentity) -> bool:
        """Return whether the identity was made, or adopted, in this place."""
        return self == (identity.machine, identity.inode)


class LastSealed:
    """The last batch of a chain that was sealed and marked, in a file: a spool that ends earlier has lost some.

    Only for chains in folders of their own: the edge's own chain has this number in the tables (counters/file.py). As
    there, the disk is not waited for: after a power cut it may be an earlier batch.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LAST_SEALED

    def fetch(self) -> int:
        """Return the number of the batch; 0 if there is none."""
        try:
            return int.from_bytes(self._path.read_bytes()[:8], "little")
        except FileNotFoundError:
            return 0

    def record(self, seq: int) -> None:
        """Record the number of the batch, in one write. Raises OSError."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Eight bytes in one write, so that a kill leaves the old number or the new one.
            os.pwrite(fd, seq.to_bytes(8, "little"), 0)
        finally:
            os.close(fd)


def get_chain_folder(state: Path, residency: str) -> Path:
    """Return the folder of the chain of a residency; empty: the edge's own, whose folder is the state directory."""
    return state / RESIDENCIES / residency if residency else state


def load_identity(folder: Path) -> EdgeIdentity | None:
    """Load the identity in a directory; None if there is none yet. Raises IdentityError if it is damaged."""
    path = folder / IDENTITY_FILE
    try:
        fields = orjson.loads(path.read_bytes())
        if fields["version"] != VERSION:
            raise IdentityError(f"{path}: has version {fields['version']}, and this program reads {VERSION}")
        return EdgeIdentity(str(fields["id"]), str(fields["machine"]), int(fields["inode"]), int(fields["made_at"]))
    except FileNotFoundError:
        return None
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise IdentityError(f"{path}: is damaged ({error}): restore it") from error


def write_identity(state: Path, identity: EdgeIdentity) -> None:
    """Make this the identity of a directory, durably. Raises TableError."""
    content = {"version": VERSION, **identity._asdict()}
    write_whole(state / IDENTITY_FILE, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def create_identity(state: Path, now: float) -> EdgeIdentity:
    """Create an identity for the present directory and its counts. `now` is Unix time."""
    identity = EdgeIdentity(_generate_id(), *StateLocation.from_path(state), int(now))
    write_identity(state, identity)
    return identity


def _generate_id() -> str:
    return f"edge-{secrets.token_hex(8)}"


def _create_unplaced_identity(state: Path) -> EdgeIdentity:
    """Create an identity without a place for counts that never had one, so that they can be set aside and adopted."""
    identity = EdgeIdentity(_generate_id(), "", 0, int((state / "control").stat().st_mtime))
    write_identity(state, identity)
    return identity


def list_set_aside(state: Path) -> list[Path]:
    """List the states that were set aside, oldest first."""
    paths = [path for path in state.iterdir() if ASIDE.fullmatch(path.name)] if state.exists() else []
    return sorted((path for path in paths if (path / IDENTITY_FILE).exists()), key=_parse_number)


def set_aside_if_moved(state: Path, folder: Path, *, shared: bool = False) -> Path | None:
    """Set the state aside, before tables are created, if the directory is another one. `folder` has the tables.

    `shared`: limits are shared with other hosts, so a state without an identity matters too. Returns the path that the
    state was moved to, or None if there was no need. A state that another supervisor uses stays. Raises IdentityError
    or OSError.
    """
    if not state.exists():
        return None
    lock = FileLock(state / "identity.lock")
    # Another supervisor uses the state, so it is in its place.
    if not lock.try_acquire():
        return None
    try:
        _finish_adoption(state, folder)
        identity = load_identity(state)
        # Without an identity nothing was shipped, so the counts of a copy do no harm unless hosts share limits.
        if identity is None and not (shared and _has_moved(state)):
            return None
        if identity is not None and StateLocation.from_path(state).matches(identity):
            return None
        refuse_if_used(state, folder)
        # Only a state with an identity can be adopted or discarded later.
        if identity is None:
            _create_unplaced_identity(state)
        return set_aside_state(state, folder)
    finally:
        lock.release()


def _has_moved(state: Path) -> bool:
    """Return whether a directory without an identity has been elsewhere."""
    if not (state / "control").exists():
        return False
    control = Control.open(state / "control")
    place = control.place
    control.close()
    return place not in (0, StateLocation.from_path(state).digest)


def adopt_identity(state: Path, folder: Path, name: str | None = None) -> Adoption:
    """Continue with an identity here: the directory's own, from another place, or one that was set aside.

    The present state is set aside in its place. An interrupted adoption is finished. Raises IdentityError or OSError.
    """
    lock, ended = _lock_unused(state, folder)
    try:
        if ended is not None and name in (None, ended.name):
            return ended
        identity = load_identity(state)
        if name is None and identity is not None and not StateLocation.from_path(state).matches(identity):
            here = identity._replace(**StateLocation.from_path(state)._asdict())
            write_identity(state, here)
            return Adoption(here, None, None)
        source = _get_set_aside(state, name)
        if identity is None and (state / "control").exists():
            if (state / SPOOL).exists():
                raise IdentityError(f"{state} has counts without an identity: serve with them once, and they have one")
            identity = _create_unplaced_identity(state)
        # The plan has the place, so that a repeated run can tell whether the state was moved there.
        put = None if identity is None else _choose_target(state)
        plan = {"name": source.name, "aside": None if put is None else put.name}
        # From here on the next process finishes an interrupted adoption.
        write_whole(state / ADOPTING, orjson.dumps(plan, option=orjson.OPT_APPEND_NEWLINE))
        adopted = _finish_adoption(state, folder)
        assert adopted is not None
        return adopted
    finally:
        lock.release()


def discard_identity(
    state: Path, folder: Path, name: str | None = None, *, confirm: Callable[[Path], None] = lambda path: None
) -> Path:
    """Delete a quarantined state directory and its counts. Return its path. Raises IdentityError.

    `confirm` is called with the path before the deletion, and raises to prevent it.
    """
    lock, _ = _lock_unused(state, folder)
    try:
        path = _get_set_aside(state, name)
        confirm(path)
        _remove(state, path)
        if folder != state and (folder / path.name).exists():
            shutil.rmtree(folder / path.name)
        return path
    finally:
        lock.release()


def set_aside_state(state: Path, folder: Path, *, only: tuple[str, ...] | None = None) -> Path:
    """Move a state away, its identity last. Return its new path. For the holder of the identity lock.

    `only` names the entries that are moved beside the identity; by default all.
    """
    target = _choose_target(state)
    target.mkdir(mode=0o700, exist_ok=True)
    if only is None:
        # A move stays within a file system, and the tables may be on another one than the state.
        tables = folder / target.name
        tables.mkdir(mode=0o700, exist_ok=True)
        _move([state / name for name in MOVED], target)
        _move(_list_table_files(folder), tables)
    else:
        _move([state / name for name in only], target)
    # Last: a target without an identity is an unfinished move, which `_choose_target` finds again.
    _move([state / IDENTITY_FILE], target)
    return target


def _choose_target(state: Path) -> Path:
    """Choose the place of the next state to set aside: the previous place, if that move was interrupted."""
    numbers = [_parse_number(path) for path in state.iterdir() if ASIDE.fullmatch(path.name)]
    unfinished = [number for number in numbers if not (state / f"aside.{number}" / IDENTITY_FILE).exists()]
    return state / f"aside.{max(unfinished) if unfinished else 1 + max(numbers, default=0)}"


def refuse_if_used(state: Path, folder: Path) -> None:
    """Raise IdentityError while workers count in the tables."""
    if not (state / "control").exists():
        return
    control = Control.open(state / "control")
    try:
        for number in list_generations(folder, "metrics"):
            file = TableFile.open(folder / file_name("metrics", number), kind="metrics", instance=control.instance)
            held = columns.list_held_columns(file)
            file.close()
            if held:
                raise IdentityError(f"workers of an edge use {state}: stop it first")
    finally:
        control.close()


def _lock_unused(state: Path, folder: Path) -> tuple[FileLock, Adoption | None]:
    """Take the identity lock of an unused directory, and finish an interrupted adoption there."""
    if not state.exists():
        raise IdentityError(f"there is no state directory {state}")
    lock = FileLock(state / "identity.lock")
    if not lock.try_acquire():
        raise IdentityError(f"an edge uses {state}: stop it first")
    try:
        ended = _finish_adoption(state, folder)
        refuse_if_used(state, folder)
    # Also for KeyboardInterrupt: the lock would stay until the process ends.
    except BaseException:
        lock.release()
        raise
    return lock, ended


def _finish_adoption(state: Path, folder: Path) -> Adoption | None:
    """Finish the work of `adopt_identity`, if it was begun."""
    path = state / ADOPTING
    if not path.exists():
        return None
    plan = orjson.loads(path.read_bytes())
    source = state / plan["name"]
    if plan["aside"] is not None and not (state / plan["aside"] / IDENTITY_FILE).exists():
        set_aside_state(state, folder)
    # An earlier run may have ended after this part.
    if source.exists():
        if folder != state:
            _move(_list_table_files(folder / source.name), folder)
        _move([*_list_table_files(source), *(source / name for name in MOVED)], state)
        identity = load_identity(source)
        assert identity is not None
        write_identity(state, identity._replace(**StateLocation.from_path(state)._asdict()))
        _remove(state, source)
    if folder != state and (folder / source.name).exists():
        (folder / source.name).rmdir()
    path.unlink()
    sync_folder(state)
    adopted = load_identity(state)
    assert adopted is not None
    return Adoption(adopted, source.name, None if plan["aside"] is None else state / plan["aside"])


def _remove(state: Path, path: Path) -> None:
    """Remove a state that was set aside, in one step: a half of it would look like an unfinished move."""
    gone = state / GONE
    if gone.exists():
        shutil.rmtree(gone)
    os.rename(path, gone)
    sync_folder(state)
    shutil.rmtree(gone)


def _get_set_aside(state: Path, name: str | None) -> Path:
    """Find the state that was set aside under this name, or the only one. Raises IdentityError."""
    there = list_set_aside(state)
    if name is None and len(there) == 1:
        return there[0]
    names = ", ".join(path.name for path in there)
    if name is None:
        raise IdentityError(f"say which one: {names}" if there else f"nothing was set aside in {state}")
    for path in there:
        if path.name == name:
            return path
    raise IdentityError(f"there is no {name} in {state}: {f'there are {names}' if there else 'nothing was set aside'}")


def _list_table_files(folder: Path) -> list[Path]:
    """List the files of tables in a directory."""
    return [folder / file_name(kind, number) for kind in KINDS for number in list_generations(folder, kind)]


def _move(paths: list[Path], target: Path) -> None:
    """Move these paths, if they exist, into a directory of their file system, durably."""
    moved = set()
    for path in paths:
        if path.exists():
            os.rename(path, target / path.name)
            moved.add(path.parent)
    for folder in {target, *moved}:
        sync_folder(folder)


def _parse_number(path: Path) -> int:
    match = ASIDE.fullmatch(path.name)
    return int(match[1]) if match else 0
