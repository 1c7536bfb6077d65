"""The setup of a state directory: its tables' files, and the creation of files that are missing or do not fit."""

import os
from collections.abc import Sequence
from pathlib import Path

from edgeproxy.edge.counters.base import Base
from edgeproxy.edge.counters.carry import Carry
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import KINDS, QUOTAS, TableError, TableFile
from edgeproxy.edge.counters.index import ROWS_MAX
from edgeproxy.edge.counters.layout import DAMAGED, HEAD_WORDS, HEADS_APART, KEYS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.counters.occupancy import ROWS as CONNECTION_ROWS
from edgeproxy.edge.counters.occupancy import WAYS
from edgeproxy.edge.counters.row_repair import repair_if_free
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.tallies import TallyTable

LIMITS, TALLIES, OCCUPANCY = (*KINDS[:2], QUOTAS, KINDS[6]), KINDS[2:4], KINDS[4]

METRIC_ROWS = 4096
"""Rows for metrics. Their labels come from the configuration only: a few hundred are many."""
METRIC_WORDS = 24
NEARLY_FULL_FRACTION = 0.8
"""If a larger part of a tally table's rows is in use, the next start begins with an empty file."""


def layouts(
    workers: int, customers: int, addresses: int, end_users: int = 20_000, *, hub: bool = False, ledger: bool = False
) -> tuple[Layout, ...]:
    """Return the layout of each table, for this many workers and as many spare columns; with a `hub`, one for other
    hosts.

    Quotas also have that one with a `ledger`, which counts other hosts.
    """
    columns = 2 * workers
    limits = columns + hub
    width, parts = (HEAD_WORDS, KEYS_APART) if hub else (LONE_HEAD_WORDS, HEADS_APART)
    return (
        Layout("customers", customers, limits, ring=32, cells=28, width=width, parts=parts),
        Layout("addresses", addresses, limits, ring=16, cells=13, width=width, parts=parts),
        # Their rings stay empty: the counts, and the time until which they matter, are in the heads.
        Layout(QUOTAS, customers, columns + (hub or ledger), ring=1, cells=1, width=HEAD_WORDS),
        Layout("usage", customers, columns, width=1, parts=2),
        Layout("metrics", METRIC_ROWS, columns, width=METRIC_WORDS),
        Layout("connections", CONNECTION_ROWS, columns, width=WAYS),
        Layout("end_users", end_users, limits, ring=16, cells=13, width=width, parts=parts),
    )


def file_name(kind: str, generation: int) -> str:
    """Return the name of a table's file."""
    return f"{kind}.{generation}.tbl"


def list_generations(folder: Path, kind: str) -> list[int]:
    """Return the numbers of a table's files in this folder, oldest first."""
    # Without a glob: it would compile a pattern for each kind in each process.
    names = (name.split(".") for name in (os.listdir(folder) if folder.is_dir() else ()))
    return sorted(int(parts[1]) for parts in names if parts[::2] == [kind, "tbl"] and parts[1].isdecimal())


def prepare_control(path: Path, folder: Path) -> Control:
    """Open the control file; create it if the folder is still empty. For the holder of the setup lock."""
    if not path.exists() and any(list_generations(folder, kind) for kind in KINDS):
        raise TableError(
            path, f"is missing, and there are tables in {folder}: put it back, or move them away to begin anew"
        )
    return Control.prepare(path)


def prepare_tables(folder: Path, control: Control, expected: Sequence[Layout], base: Base, now: float) -> None:
    """Create every table that is missing, has another layout or (limits of rates) is of another boot; make it current.

    Nothing becomes current, and nothing is left behind, unless all could be created. Limits of this boot are carried
    over; tallies need not be, as totals are summed over all files. For the holder of the setup lock.
    """
    remove_unfinished(folder, control)
    made: list[tuple[str, int]] = []
    try:
        for layout in expected:
            current = open_current(folder, control, layout.kind)
            if current is None or not is_usable(current, layout, control):
                made.append((layout.kind, create_table(folder, control, layout, current, base, now)))
            if current is not None:
                current.close()
    except BaseException:
        for kind, generation in made:
            (folder / file_name(kind, generation)).unlink()
        raise
    for kind, generation in made:
        control.publish(kind, generation)
    control.flush()


def recover(folder: Path, control: Control) -> None:
    """Repair the tables that outlive a boot before the first process of a new one uses them.

    If the host lost power, some pages of a file on the disk may be much older than the others.
    """
    for kind in (QUOTAS, *TALLIES):
        file = open_current(folder, control, kind)
        if file is None:
            continue
        if kind == QUOTAS:
            file.allocate_again()
            file.words[DAMAGED] = 1
            repair_if_free(LimitTable(file))
        else:
            TallyTable(file).recover()
        file.close()


def remove_unfinished(folder: Path, control: Control) -> None:
    """Remove the files of an interrupted setup: they never became current, so nothing was counted in them."""
    for path in folder.glob("*.tbl.*.tmp"):
        path.unlink()
    for kind in KINDS:
        for generation in list_generations(folder, kind):
            if generation > control.generation(kind):
                (folder / file_name(kind, generation)).unlink()


def open_current(folder: Path, control: Control, kind: str) -> TableFile | None:
    """Open the current file of a table; None if none was created, or it has been removed."""
    path = folder / file_name(kind, control.generation(kind))
    return TableFile.open(path, kind=kind, instance=control.instance) if path.exists() else None


def is_usable(file: TableFile, layout: Layout, control: Control) -> bool:
    """Return whether a file can go on being used."""
    if file.layout != layout:
        return False
    if layout.kind in LIMITS:
        return file.boot == boot_of(layout.kind, control)
    return TallyTable(file).rows_in_use < NEARLY_FULL_FRACTION * layout.rows


def boot_of(kind: str, control: Control) -> int:
    """Return the boot of a file of this kind; 0 if it outlives boots."""
    return control.boot if kind in LIMITS and kind != QUOTAS else 0


def create_table(
    folder: Path, control: Control, layout: Layout, current: TableFile | None, base: Base, now: float
) -> int:
    """Create the next file of a table, with the limits of the current one carried over. Returns its number."""
    if layout.rows > ROWS_MAX:
        raise TableError(folder, f"{layout.rows} rows are too many for {layout.kind}: {ROWS_MAX} is the most")
    folded = [int(name.split(".")[1]) for name in base.folded if name.startswith(f"{layout.kind}.")]
    generation = 1 + max(control.generation(layout.kind), *list_generations(folder, layout.kind), *folded, 0)
    path = folder / file_name(layout.kind, generation)
    boot = boot_of(layout.kind, control)
    # The counts of the current file must find room, or the full disk shows now.
    used = 0 if current is None or layout.kind not in LIMITS else LimitTable(current).rows_in_use
    TableFile.create(path, layout, generation=generation, instance=control.instance, boot=boot, used_rows=used)
    if current is not None and layout.kind in LIMITS and current.boot == boot:
        try:
            new = TableFile.open(path, kind=layout.kind, instance=control.instance)
            Carry(LimitTable(current), LimitTable(new)).slice(now, float("inf"))
            new.close()
        except BaseException:
            path.unlink()
            raise
    return generation
