"""Headroom: far from a limit, a worker decides several times before it reads its siblings' words again.

A worker that has just read all words and finds a *margin* of the limit left, a quarter, takes a part of it: its
headroom. Until that much is counted it decides without reading. A worker whose request would leave less than the margin
raises the row's *alarm*, a word that all workers of the row look at before they use headroom, and reads again. From
then on all of them read for each decision. So they do after a charge that no decision knew.
docs/design/limits.md#headroom has the proof that no more requests pass.

Counts are always written at once, so a worker that is stopped, killed or replaced holds nothing that others miss.
"""

from edgeproxy.edge.counters.rows import LimitTable

MARGIN_PARTS = 4
"""The margin is one of so many parts of the limit."""
BEYOND_HEADROOM = 1 << 62
"""A cost beyond all headroom: a rate that is charged later decides by readings alone."""
UNSETTLED = -(1 << 80)
"""Subtracted from the sum of siblings' words, so that no sum looks like counts."""
FULL_SECONDS = 0.05
"""Seconds for which a row that was read as full is not read again: counts of a cell only grow."""


class Headroom:
    """Headroom of this process in one row. One limit at a time has it, the one that was read last."""

    __slots__ = ("_table", "alarm", "alarm_at", "alarmed", "full_until", "limit", "seen", "settled", "until")

    def __init__(self, table: LimitTable, row: int) -> None:
        self._table = table
        self.alarm_at = row + table.alarm_at
        self.alarm = 0
        """The alarm at the last reading that gave headroom."""
        self.reset()

    def reset(self) -> None:
        """Give up the headroom and the last reading, for a new cell or other columns."""
        self.until = -1
        """This process's own count up to which it need not read."""
        self.limit = -1
        """The limit that has the headroom."""
        self.alarmed = -1
        """The limit that this process has raised the alarm for, and that has less than the margin left since."""
        self.seen = 0
        """The siblings' counts at the last reading."""
        self.settled = UNSETTLED
        """The part of the sum of the siblings' words that is no count of this cell."""
        self.full_until = -1.0
        """The edge time until which a row without room is not read again."""

    def grant(self, limit: int, own: int, alarm: int) -> None:
        """Take headroom after a reading with the margin left; `alarm` was read before it, `own` is counted here."""
        self.limit = limit
        self.alarm = alarm
        room = compute_headroom(limit, self._table.layout.columns) if self._table.may_use_headroom else 0
        self.until = own + room if room else -1

    def must_raise(self, limit: int) -> bool:
        """Return whether a decision near this limit must raise the alarm first: others may have headroom.

        It depends on the layout alone, because workers learn at different times who else counts.
        """
        layout = self._table.layout
        return self.alarmed != limit and layout.hub is None and compute_headroom(limit, layout.columns) > 0

    def raise_alarm(self) -> None:
        """Make all workers read again before they use headroom. The caller then reads once more."""
        self._table.raise_alarm(self.alarm_at)

    def follow_charge(self, own: int) -> None:
        """Make others read if a charge that no decision knew has passed this process's headroom: `own` is its count."""
        if own > self.until and self._table.layout.hub is None:
            self.raise_alarm()


def compute_headroom(limit: int, columns: int) -> int:
    """Return how much the worker of each of these `columns` may count without reading; 0 if the limit is low."""
    return limit // MARGIN_PARTS // columns
