"""Subjects without a row in a full table, and the owner of their counts meanwhile."""

from collections import OrderedDict
from collections.abc import Callable

SUBJECTS_MAX = 16_384
"""Subjects without a row whose counts a process holds at most, 1 to 2 KiB each."""


class Locals:
    """The counts of one table that have no row in it, and the callback for a full table."""

    def __init__(self, hosts: int = 1, full: Callable[[], None] | None = None) -> None:
        """`hosts` share the limits. `full` is called whenever the table turned out to be full."""
        self.hosts = hosts
        self._full = full
        self._subjects: OrderedDict[object, None] = OrderedDict()

    def full(self) -> None:
        """Report that the table had no free row."""
        if self._full is not None:
            self._full()

    def add(self, counts: object) -> None:
        """Hold a reference to counts without a row, because nothing else does.

        Above the bound the oldest are dropped.
        """
        self._subjects[counts] = None
        if len(self._subjects) > SUBJECTS_MAX:
            self._subjects.popitem(last=False)

    def remove(self, counts: object) -> None:
        """Release counts that have a row now."""
        self._subjects.pop(counts, None)
