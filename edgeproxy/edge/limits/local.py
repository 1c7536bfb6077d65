"""Subjects without a row in a full table, and the owner of their counts meanwhile."""

from collections import OrderedDict
from collections.abc import Callable

from edgeproxy.edge.counters.local_row import LocalRow

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


class LocalCounts(LocalRow):
    """The counts of a key without a row, for all objects of the process that count it."""

    __slots__ = ("__weakref__", "is_poured", "retry_at", "share")

    def __init__(self, ring: int, cells: int) -> None:
        super().__init__(ring, cells)
        self.is_poured = False
        """True once its counts are in a row of the table."""
        self.retry_at = -1.0
        """The edge time of the next question for a row of the table."""
        self.share = 1
        """This process may use one part in `share` of the limit."""

    def invalidate(self) -> None:
        """Do nothing: no other column counts here."""

    def recover_clock(self, now: float) -> None:
        """Do nothing: readers ignore cells of the future."""


class LocalSlots:
    """The slots in use of a key without a row, for all objects of the process that count it."""

    __slots__ = ("__weakref__", "retry_at", "row", "share", "used")

    def __init__(self) -> None:
        self.used = 0
        self.row = 0
        """The first word of the row in the table that has these slots since; 0 if none has."""
        self.retry_at = -1.0
        """The edge time of the next question for a row of the table."""
        self.share = 1
        """This process may use one part in `share` of the limit."""

    def invalidate(self) -> None:
        """Do nothing: no other column counts here."""

    def recover_clock(self, now: float) -> None:
        """Do nothing: slots in use depend on no clock."""
