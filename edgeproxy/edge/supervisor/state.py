"""The state directory of a supervisor that starts: its preparation, and whether other processes use it."""

from collections.abc import Iterator
from pathlib import Path

from edgeproxy.base import clock, log
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings
from edgeproxy.config.references import Fault
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.control import Control, boot_digest
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.setup import TALLIES, file_name
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.proxy.observation.log_file import describe_problem
from edgeproxy.edge.usage import identity

NOT_ITS_OWN = "the directory is not the one that was left: a copy, a moved volume, a restored backup"


class StateDirectoryError(Exception):
    """The state directory, or a file beside it, cannot be used; the text for the operator gives the reason."""


def prepare_store(settings: EdgeSettings) -> Store:
    """Open the store of these settings, and create the tables that are missing. Raises StateDirectoryError."""
    state, tables = settings.state, settings.tables
    folder = tables.dir or state
    try:
        refuse_other_folder(state, folder)
        put = identity.set_aside_if_moved(state, folder, shared=settings.hub.is_shared) if state.is_dir() else None
        if put is not None:
            log.get_logger().error(
                "the state was set aside, and this edge begins anew", aside=str(put), why=NOT_ITS_OWN
            )
        store = Store.prepare(
            state,
            workers=settings.workers,
            customers=tables.customers,
            addresses=tables.addresses,
            end_users=tables.end_users,
            tables_dir=tables.dir,
            hub=settings.hub.is_shared,
            ledger=settings.usage is not None,
        )
        store.control.write_place(identity.StateLocation.from_path(state).digest)
        return store
    except (OSError, identity.IdentityError) as error:
        why = str(error).removeprefix(f"{state}: ").removeprefix("cannot be used: ")
        raise StateDirectoryError(f"the state directory {state} cannot be used: {why}") from error


def refuse_other_folder(state: Path, folder: Path) -> None:
    """Raise TableError if `folder` lacks the current tables: their counts would be missing.

    After a reboot they may be gone with a file system in memory. Then this is logged, and the edge starts.
    """
    if not (state / "control").exists():
        return
    control = Control.open(state / "control")
    this_boot = control.boot == boot_digest(clock.boot_id())
    current = [file_name(kind, control.generation(kind)) for kind in TALLIES if control.generation(kind)]
    control.close()
    missing = [name for name in current if not (folder / name).exists()]
    if missing and this_boot:
        why = f"are not in {folder}, and what they count would be missing: write tables.dir as it was"
        raise TableError(state, f"its tables {why}, or move the state directory away to begin anew")
    if missing:
        log.get_logger().error("tables are gone: what was counted in them is missing", tables=missing, dir=str(folder))


def refuse_log(settings: EdgeSettings) -> None:
    """Raise StateDirectoryError if the access log cannot be written; otherwise each worker would fail at it later."""
    if (why := describe_log_fault(settings)) is not None:
        raise StateDirectoryError(f"the access log {why}")


def log_faults(settings: EdgeFile) -> Iterator[Fault]:
    """Yield a fault, with its place in the file, if the access log cannot be written."""
    if (why := describe_log_fault(settings)) is not None:
        yield Fault(("access_log",), why, "name a file that the edge can write to")


def describe_log_fault(settings: EdgeFile) -> str | None:
    """Return `FILE cannot be written: WHY`; None if the access log can be written, or there is none."""
    if settings.access_log is None:
        return None
    file = settings.access_log.file
    why = describe_problem(file)
    return None if why is None else f"{file} cannot be written: {why}"


def is_in_use(store: Store) -> bool:
    """Return whether another supervisor, or a worker that lost its own, uses this state directory."""
    if not store.identity.try_acquire():
        return True
    files = (store.get_file(file_name("metrics", number), "metrics") for number in store.list_generations("metrics"))
    return any(columns.list_held_columns(file) for file in files)
