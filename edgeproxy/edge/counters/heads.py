"""The heads of one row as they were read at once: what each column counted, its claims, its period.

A row's kind says what there is in it (layout.py): of a rate counts and claims, of a quota counts and periods.
"""

from edgeproxy.edge.counters import layout as at


class Heads:
    """The heads of all columns of a row: the foreign one's first, the hub's last where the table has one."""

    __slots__ = ("_own", "each", "width")

    def __init__(self, each: list[int], width: int, has_hub: bool) -> None:
        """`each`: the words of all heads, of `width` words each."""
        self.each = each
        self.width = width
        self._own = len(each) - width if has_hub else len(each)
        """Where the heads of this host end."""

    @property
    def counted(self) -> int:
        """What this host ever counted in the row, older files' counts among it."""
        return sum(self.each[at.CUM : self._own : self.width])

    @property
    def counted_elsewhere(self) -> int:
        """What other hosts ever counted, as far as the hub has said."""
        return sum(self.each[self._own + at.CUM :: self.width])

    @property
    def given(self) -> int:
        """Claims that this host's workers were ever given."""
        return sum(self.each[self.width + at.GIVEN : self._own : self.width])

    @property
    def spent(self) -> int:
        """Claims that this host's workers ever used, or gave back."""
        return sum(self.each[self.width + at.USED : self._own : self.width])

    @property
    def waiting(self) -> int:
        """Claims that are wanted and not given yet."""
        each, width, own = self.each, self.width, self._own
        requested, given = each[width + at.WANT : own : width], each[width + at.GIVEN : own : width]
        if requested == given:
            return 0
        return sum([max(0, want - has) for want, has in zip(requested, given, strict=True)])

    @property
    def has_claims(self) -> bool:
        """Whether a worker has claims that it has not spent, or wants some."""
        each, width, own = self.each, self.width, self._own
        return each[width + at.USED : own : width] != each[width + at.GIVEN : own : width] or self.waiting > 0

    def periods(self, *, elsewhere: bool) -> list[tuple[int, int]]:
        """(number of a calendar period, what was counted in it) of each column of a quota's row.

        `elsewhere`: that of the hub's column too.
        """
        words = self.each if elsewhere else self.each[: self._own]
        return list(zip(words[at.PERIOD :: self.width], words[at.CUM :: self.width], strict=True))
