"""The content of a file as a tree of plain values with their places.

Every scalar is text, exactly as written. The models decide which texts are numbers or switches, so `region: no` is
Norway and a customer may have the name 007.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edgeproxy.config.problems import Steps


class Table(dict[str, "Value"]):
    """A mapping. `marks` has the place of each key, in the order of the keys."""

    __slots__ = ("marks",)

    def __init__(self, values: Mapping[str, "Value"] | None = None, marks: Iterable[int] = ()) -> None:
        super().__init__(values or {})
        self.marks = list(marks)

    def add_field(self, key: str, value: "Value", mark: int) -> None:
        """Set a key that does not exist yet."""
        self[key] = value
        self.marks.append(mark)


class FlatTable(Table):
    """A mapping of texts alone, all on the line where it stands, so that it needs no marks. Places may share it."""

    __slots__ = ()

    __init__ = dict.__init__

    @property
    def marks(self) -> list[int]:  # type: ignore[override]
        """No marks: the fields are at the place of the mapping."""
        return []


class Items(list["Value"]):
    """A list. `marks` has the place of each member."""

    __slots__ = ("marks",)

    def __init__(self, values: Iterable["Value"] = (), marks: Iterable[int] = ()) -> None:
        super().__init__(values)
        self.marks = list(marks)


Value = str | None | Table | Items
"""A node of the tree. None: the value is unavailable, which is already reported."""


def replace_value(tree: Table, path: Steps, value: Value) -> Table:
    """Return the tree with this value at an existing, non-empty path. The tree itself does not change."""
    return Table({key: _replace(node, path[1:], value) if key == path[0] else node for key, node in tree.items()})


def _replace(node: Value, path: Steps, value: Value) -> Value:
    if not path:
        return value
    if isinstance(node, Table):
        return replace_value(node, path, value)
    assert isinstance(node, Items)
    return Items(_replace(member, path[1:], value) if n == path[0] else member for n, member in enumerate(node))


Report = Callable[[int, Steps, str, str], None]
"""A function that reports a problem: its mark, its path, the problem and a hint."""


class Mark(NamedTuple):
    """A place: the number of the file, in the order of reading, and the line, from 1. Trees store it as one number."""

    file: int
    line: int

    def pack(self) -> int:
        """Return a number that increases from line to line and from file to file."""
        return self.file << 32 | self.line

    @classmethod
    def unpack(cls, packed: int) -> "Mark":
        """Return the place of a packed number."""
        return cls(packed >> 32, packed & 0xFFFFFFFF)


class Location(NamedTuple):
    """Location of a value: its mark, its path in the tree, its path as written in its file, and the value.

    All end at the last existing step of the tree, so that a missing field is located in its parent. In a list joined
    from several files, the written path counts from the start of the marked file's part.
    """

    mark: int
    path: Steps
    written: Steps
    value: Value


class Places:
    """Locates the values of a tree in its files."""

    def __init__(self, tree: Table) -> None:
        self._tree = tree
        self._marks: dict[int, dict[str, int]] = {}

    def locate(self, path: Steps) -> Location:
        """Return the location of the value at `path`. An index may lead to a single member written without a list."""
        mark = Mark(0, 1).pack()
        node: Value = self._tree
        steps: list[str | int] = []
        written: list[str | int] = []
        for step in path:
            if isinstance(node, Table) and step in node:
                key = str(step)
                if not isinstance(node, FlatTable):
                    mark = self._get_marks(node)[key]
                steps.append(key)
                written.append(key)
                node = node[key]
            elif isinstance(node, Items) and isinstance(step, int):
                mark = node.marks[step]
                steps.append(step)
                written.append(step - bisect_left(node.marks, Mark(Mark.unpack(mark).file, 0).pack()))
                node = node[step]
            elif not isinstance(step, int):
                break
        return Location(mark, tuple(steps), tuple(written), node)

    def _get_marks(self, table: Table) -> dict[str, int]:
        """Return the marks of a table by key. They are cached, because one table may have thousands of problems."""
        if id(table) not in self._marks:
            self._marks[id(table)] = dict(zip(table, table.marks, strict=True))
        return self._marks[id(table)]
