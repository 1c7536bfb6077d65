"""The heads of one row, read at once: each column's counts, claims or period.

The content of the heads depends on the kind of row (layout.py): counts and claims for a rate, counts and periods for a
quota.
"""

from collections.abc import Sequence

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence

Spans = Sequence[tuple[int, int]]
"""Pieces of words that hold heads: the first word of each, and its end."""


def read_heads(words: memoryview, spans: Spans, width: int) -> list[int]:
    """Read the heads in these pieces, each `width` words: SEEN_CUM first, then LEVEL or PERIOD, and CUM last.

    They are written in the reverse order (edge/limits/levels.py, edge/limits/quota.py). So a level always includes at
    least the counts that its SEEN_CUM states, and a count never belongs to an earlier period than the period read with
    it.
    """
    heads: list[int] = []
    for start, end in spans:
        heads += words[start:end].tolist()
    for word in (at.LEVEL, at.CUM):
        if IS_WEAK:
            fence()
        place = word
        for start, end in spans:
            heads[place : place + end - start - word : width] = words[start + word : end : width].tolist()
            place += end - start
    return heads


class Heads:
    """The heads of all columns of a row: the foreign one's first, the hub's last if the table has one."""

    __slots__ = ("_own", "each", "width")

    def __init__(self, each: list[int], width: int, has_hub: bool) -> None:
        """`each` is the words of all heads, `width` words each."""
        self.each = each
        self.width = width
        self._own = len(each) - width if has_hub else len(each)
        """The end of this host's heads."""

    @property
    def counted(self) -> int:
        """The total count of this host in the row, including the counts of older files."""
        return sum(self.each[at.CUM : self._own : self.width])

    @property
    def counted_elsewhere(self) -> int:
        """The total count of other hosts, by the hub's last answer."""
        return sum(self.each[self._own + at.CUM :: self.width])

    @property
    def given(self) -> int:
        """The total of claims given to this host's workers."""
        return sum(self.each[self.width + at.GIVEN : self._own : self.width])

    @property
    def spent(self) -> int:
        """The total of claims that this host's workers used or returned."""
        return sum(self.each[self.width + at.USED : self._own : self.width])

    @property
    def waiting(self) -> int:
        """Claims that are requested and not given yet."""
        each, width, own = self.each, self.width, self._own
        requested, given = each[width + at.WANT : own : width], each[width + at.GIVEN : own : width]
        if requested == given:
            return 0
        return sum([max(0, want - has) for want, has in zip(requested, given, strict=True)])

    @property
    def has_claims(self) -> bool:
        """True if a worker has unspent claims, or requests some."""
        each, width, own = self.each, self.width, self._own
        return each[width + at.USED : own : width] != each[width + at.GIVEN : own : width] or self.waiting > 0

    def periods(self, *, elsewhere: bool) -> list[tuple[int, int]]:
        """Return (number of a calendar period, count in it) for each column of a quota's row.

        `elsewhere` includes the hub's column.
        """
        words = self.each if elsewhere else self.each[: self._own]
        return list(zip(words[at.PERIOD :: self.width], words[at.CUM :: self.width], strict=True))
