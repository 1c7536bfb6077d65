"""The durable base: totals of tally files that are gone, so that a total since the state was made never falls.

`base.json` holds the sums and the names of the files folded into them. It is replaced in one step; a file that
is named in it counts no more, whether or not it has been unlinked yet. File names are never used twice.
"""

import os
from itertools import zip_longest
from pathlib import Path
from time import perf_counter

import orjson

from edgeproxy.counters.file import TableError, write_whole
from edgeproxy.counters.tallies import TallyTable

VERSION = 1
Sums = dict[bytes, tuple[int, list[int]]]
"""Key of a tally row -> its kind and its words."""

ROUND = 64
"""Rows between two looks at the clock."""


def add(sums: Sums, kind: int, key: bytes, words: list[int]) -> None:
    """Add one row's words to the sums."""
    known = sums.get(key)
    sums[key] = (kind, words if known is None else [a + b for a, b in zip_longest(known[1], words, fillvalue=0)])


class Base:
    """What base.json says. Never changed in place: `fold` makes another."""

    def __init__(self, folded: frozenset[str] = frozenset(), tables: dict[str, Sums] | None = None) -> None:
        self.folded = folded
        self.tables = tables or {}

    @classmethod
    def load(cls, path: Path) -> "Base":
        """Read base.json, empty where there is none; raises TableError where it cannot be understood."""
        try:
            content = orjson.loads(path.read_bytes())
            if content["version"] != VERSION:
                raise TableError(path, f"has version {content['version']}, and this program reads {VERSION}")
            tables = {
                table: {key.encode(): (kind, words) for kind, key, words in rows}
                for table, rows in content["tables"].items()
            }
            return cls(frozenset(content["folded"]), tables)
        except FileNotFoundError:
            return cls()
        except (KeyError, TypeError, ValueError) as wrong:
            raise TableError(path, f"is damaged ({wrong}): restore it, or move it away and lose old totals") from wrong

    def fold(self, name: str, table: str, rows: Sums, *, present: frozenset[str]) -> "Base":
        """The base with the file `name` of `table` in it. Names of files that are not `present` are forgotten."""
        sums = dict(self.tables.get(table, {}))
        for key, (kind, words) in rows.items():
            add(sums, kind, key, words)
        return Base((self.folded & present) | {name}, {**self.tables, table: sums})

    def write(self, path: Path) -> None:
        """Replace base.json, durably and in one step."""
        tables = {
            table: [(kind, key.decode(), words) for key, (kind, words) in sums.items()]
            for table, sums in self.tables.items()
        }
        content = {"version": VERSION, "folded": sorted(self.folded), "tables": tables}
        write_whole(path, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


class Fold:
    """The reading of a file that no worker holds any more, by the piece."""

    def __init__(self, table: TallyTable) -> None:
        self.sums: Sums = {}
        self._rows = table.totals()

    def slice(self, until: float) -> bool:
        """Read on until `until` (perf_counter); True once the whole file is in `sums`."""
        for read, (kind, key, words) in enumerate(self._rows, 1):
            add(self.sums, kind, key, words)
            if read % ROUND == 0 and perf_counter() >= until:
                return False
        return True


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes whenever base.json is replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
