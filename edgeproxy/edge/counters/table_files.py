"""The files of a state directory, opened when they are needed."""

from pathlib import Path

from edgeproxy.edge.counters.base import Base, read_stamp
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import TALLIES, file_name, list_generations

IDENTITY_FILE = "identity.json"
"""The file that exists once usage is sealed; see edge/usage/identity.py."""
USAGE = TALLIES[0]


class TableFiles:
    """The open files of one process, and the base that holds the totals of removed files."""

    def __init__(self, state: Path, tables_dir: Path | None, control: Control) -> None:
        self.state = state
        self.folder = tables_dir or state
        self.base_path = state / "base.json"
        self.control = control
        self.limits: dict[str, LimitTable] = {}
        """The current tables of limits, by name."""
        self.sealed: set[str] = set()
        """Files of usage whose whole content has been sealed for good, by edge/usage/seal.py."""
        self._files: dict[str, TableFile] = {}
        self._base: tuple[tuple[int, int, int], Base] | None = None

    def close(self) -> None:
        """Close all files. Objects that use them cannot be used after that."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self.control.close()

    def current(self, kind: str) -> TableFile:
        """Return the current file of a table."""
        return self.get_file(file_name(kind, self.control.generation(kind)), kind)

    def list_generations(self, kind: str) -> list[int]:
        """Return the numbers of a table's files up to the current one, oldest first."""
        current = self.control.generation(kind)
        return [number for number in list_generations(self.folder, kind) if number <= current]

    def get_file(self, name: str, kind: str) -> TableFile:
        """Return the open file of this name."""
        if name not in self._files:
            self._files[name] = TableFile.open(self.folder / name, kind=kind, instance=self.control.instance)
        return self._files[name]

    def close_file(self, name: str) -> None:
        """Close a file that has been removed."""
        if name in self._files:
            self._files.pop(name).close()

    def may_fold(self, name: str, kind: str) -> bool:
        """Return whether a file of tallies may go into the base: a file of usage only if it is sealed, once an identity
        exists.

        If no supervisor seals now, the last seal may not be marked yet, and would be sealed again.
        """
        return kind != USAGE or name in self.sealed or not (self.state / IDENTITY_FILE).exists()

    def load_base(self) -> Base:
        """Return the content of base.json."""
        read = read_stamp(self.base_path)
        if self._base is None or self._base[0] != read:
            self._base = (read, Base.load(self.base_path))
        return self._base[1]
