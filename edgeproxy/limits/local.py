"""Who of a table has no row in it, and how its counts are kept alive meanwhile."""

from collections import OrderedDict
from collections.abc import Callable

SUBJECTS_KEPT_MAX = 16_384
"""Subjects without a row whose counts a process keeps, 1 to 2 KiB each, though nobody else may hold them."""


class Locals:
    """Who of one table is without a row in it, and what is done about it."""

    def __init__(self, hosts: int = 1, full: Callable[[], None] | None = None) -> None:
        """`hosts` share the limits; `full` is called whenever the table turned out to be full."""
        self.hosts = hosts
        self._full = full
        self._kept: OrderedDict[object, None] = OrderedDict()

    def full(self) -> None:
        """The table had no row to give."""
        if self._full is not None:
            self._full()

    def enter(self, counts: object) -> None:
        """These counts have no row: keep them alive, for nothing else remembers them. The longest kept gives way."""
        self._kept[counts] = None
        if len(self._kept) > SUBJECTS_KEPT_MAX:
            self._kept.popitem(last=False)

    def leave(self, counts: object) -> None:
        """These counts have a row."""
        self._kept.pop(counts, None)
