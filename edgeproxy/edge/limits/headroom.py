"""Headroom: far from a limit, a worker decides several times before it reads its siblings' words again.

A worker that has just read all words and finds a *margin* of the limit left, a quarter, takes a part of half of it: its
headroom. Until that much is counted it decides without reading. A worker that finds less than the margin raises the
row's *alarm*, a word that all workers of the row look at before they use headroom, and reads again. From then on all
of them read for each decision. docs/design/limits.md#headroom has the proof that no more requests pass.

Counts are always written at once, so a worker that is stopped, killed or replaced holds nothing that others miss.
"""

from edgeproxy.edge.counters.rows import LimitTable

MARGIN_PARTS = 4
"""The margin is one of so many parts of the limit."""
FULL_SECONDS = 0.05
"""Seconds for which a row that was read as full is not read again: counts of a cell only grow."""


class Headroom:
    """This process's headroom in one row. One limit at a time has it, the one that was read last."""

    __slots__ = ("_table", "alarm", "alarm_at", "alarmed", "full_until", "limit", "seen", "until")

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
        """The limit that this process has raised the alarm for."""
        self.seen = 0
        """The siblings' counts at the last reading."""
        self.full_until = -1.0
        """The edge time until which a row without room is not read again."""

    def grant(self, limit: int, own: int, alarm: int) -> None:
        """Take headroom after a reading with the margin left; `alarm` was read before it, `own` is counted here."""
        self.limit = limit
        self.alarm = alarm
        self.until = own + compute_headroom(limit, self._table.sharers)

    def must_raise(self, limit: int) -> bool:
        """Return whether a decision near this limit must raise the alarm first: others may have headroom."""
        return self.alarmed != limit and compute_headroom(limit, self._table.sharers) > 0

    def raise_alarm(self, limit: int) -> None:
        """Make all workers read again before they use headroom. The caller then reads once more."""
        self.alarmed = limit
        self._table.raise_alarm(self.alarm_at)


def compute_headroom(limit: int, sharers: int) -> int:
    """Return how much each of these `sharers` may count without reading; 0 without any, or if the limit is low."""
    return (limit // MARGIN_PARTS) // (2 * sharers) if sharers else 0
