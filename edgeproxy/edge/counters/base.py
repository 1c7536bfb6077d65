"""The durable base: totals of tally files that are gone, so that a total since the state was created never falls.

`base.json` holds the sums and the names of the files folded into them. It is replaced in one step; a file that it names
counts no more, whether or not it has been unlinked yet. File names are never used twice.

Once usage is sealed here, it also holds the sealed part of each sum: the marks of the base. A program that does not
know marks must not lose them, so from then on the version is another one.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from edgeproxy.edge.counters.file import TableError, write_whole
from edgeproxy.edge.counters.tallies import TallyTable

UNSEALED_VERSION, SEALED_VERSION = 1, 2
"""Versions of base.json: without marks, and with them."""
Sums = dict[bytes, tuple[int, list[int]]]
"""Key of a tally row -> its kind and its words."""
Marks = Mapping[bytes, int]
"""Key of a tally row -> the part of its total that has been sealed."""

ROWS_PER_CLOCK_READ = 64
"""Rows between two reads of the clock."""


def add_sums(sums: Sums, kind: int, key: bytes, words: list[int]) -> None:
    """Add one row's words to the sums."""
    previous = sums.get(key)
    sums[key] = (kind, words if previous is None else [a + b for a, b in zip_longest(previous[1], words, fillvalue=0)])


class Base:
    """The content of base.json. Never changed in place: `fold` returns another."""

    def __init__(
        self, folded: frozenset[str] = frozenset(), tables: dict[str, Sums] | None = None, sealed: Marks | None = None
    ) -> None:
        self.folded = folded
        self.tables = tables or {}
        self.sealed = sealed
        """The sealed part of the sums of usage; None if nothing was ever sealed."""

    @classmethod
    def load(cls, path: Path) -> "Base":
        """Read base.json, empty if it is missing; raises TableError if it cannot be parsed."""
        try:
            content = orjson.loads(path.read_bytes())
            if content["version"] not in (UNSEALED_VERSION, SEALED_VERSION):
                raise TableError(path, f"has version {content['version']}, and this program reads {UNSEALED_VERSION}")
            tables = {
                table: {key.encode(): (kind, words) for kind, key, words in rows}
                for table, rows in content["tables"].items()
            }
            marks = None
            if content["version"] == SEALED_VERSION:
                marks = {key.encode(): int(mark) for key, mark in content["sealed"]}
            return cls(frozenset(content["folded"]), tables, marks)
        except FileNotFoundError:
            return cls()
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(path, f"is damaged ({error}): restore it, or move it away and lose old totals") from error

    def fold(self, name: str, table: str, rows: Sums, *, present: frozenset[str], marks: Marks | None = None) -> "Base":
        """Return the base with the file `name` of `table` in it, and with its `marks`, if usage is sealed.

        Names of files that are not `present` are dropped.
        """
        sums = dict(self.tables.get(table, {}))
        for key, (kind, words) in rows.items():
            add_sums(sums, kind, key, words)
        sealed = self.sealed
        if marks:
            added = {key: mark for key, mark in marks.items() if mark}
            sealed = {**(sealed or {}), **{key: mark + (sealed or {}).get(key, 0) for key, mark in added.items()}}
        return Base((self.folded & present) | {name}, {**self.tables, table: sums}, sealed)

    def list_unsealed(self, table: str) -> Iterator[tuple[bytes, int, int]]:
        """Yield (key, total, mark) of every sum that differs from its mark."""
        sealed = self.sealed or {}
        for key, (_, words) in self.tables.get(table, {}).items():
            if words[0] != sealed.get(key, 0):
                yield key, words[0], sealed.get(key, 0)

    def mark(self, totals: Marks) -> "Base":
        """Return the base with at least these totals marked as sealed; this base if they already are."""
        sealed = self.sealed or {}
        raised = {key: total for key, total in totals.items() if total > sealed.get(key, 0)}
        if self.sealed is not None and not raised:
            return self
        return Base(self.folded, self.tables, {**sealed, **raised})

    def write(self, path: Path) -> None:
        """Replace base.json, durably and in one step."""
        tables = {
            table: [(kind, key.decode(), words) for key, (kind, words) in sums.items()]
            for table, sums in self.tables.items()
        }
        content: dict[str, Any] = {"version": UNSEALED_VERSION, "folded": sorted(self.folded), "tables": tables}
        if self.sealed is not None:
            content |= {
                "version": SEALED_VERSION,
                "sealed": [(key.decode(), mark) for key, mark in self.sealed.items()],
            }
        write_whole(path, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


class Fold:
    """The reading, in slices, of a file that no worker holds any more."""

    def __init__(self, table: TallyTable) -> None:
        self.sums: Sums = {}
        self.marks: dict[bytes, int] = {}
        self._rows = table.totals()
        self._marks = table.marks() if table.layout.width == 1 else iter(())

    def slice(self, until: float) -> bool:
        """Read on until `until` (perf_counter); return whether the whole file is in `sums`, and its marks in
        `marks`.
        """
        for read, (kind, key, words) in enumerate(self._rows, 1):
            add_sums(self.sums, kind, key, words)
            if read % ROWS_PER_CLOCK_READ == 0 and perf_counter() >= until:
                return False
        for read, (key, mark) in enumerate(self._marks, 1):
            # A key may have two rows, if the process that claimed the first was killed.
            self.marks[key] = self.marks.get(key, 0) + mark
            if read % ROWS_PER_CLOCK_READ == 0 and perf_counter() >= until:
                return False
        return True


def read_stamp(path: Path) -> tuple[int, int, int]:
    """Return a value that changes whenever base.json is replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
