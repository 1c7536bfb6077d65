"""Reclaiming unused rows of limits: idle, closing, and 2 s later free or revived.

A row is idle after its window and 60 s more without a count, if no part of it is in use, and no bucket has to drain nor
quota's period to end. It is closed by an odd generation and a new sync version. Every worker that decides on it from
then on sees this, and makes the generation even again under the file's flock. A decision made just before shows in the
row when it is examined 2 s later, under that flock too. So a row is either freed or revived, never both.
"""

from time import perf_counter

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import SHIFT, bounds, cell_number, milliseconds
from edgeproxy.edge.counters.row_key import HAS_GAUGES, HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable

IDLE_SECONDS = 60.0
"""Seconds that a row is retained beyond its window."""
GRACE_SECONDS = 2.0
"""Seconds from closing to the second examination."""
PERIOD_RETENTION_SECONDS = 7200.0
"""Seconds that a quota's row is retained beyond its period: the clock that ended the period may yet be set back."""
SKEW_SECONDS = 1.0
"""Moments may lie this many seconds ahead of the clock; moments further ahead are from before it was set back."""


class Reclaim:
    """The reclaiming of one table, by the holder of the identity lock. `now` is edge time."""

    def __init__(self, table: LimitTable) -> None:
        self.table = table
        self._cursor = 0
        self._closing: dict[int, float] = {}

    def slice(self, now: float, until: float) -> tuple[int, int, int]:
        """Go on with the round through the table until `until` (perf_counter), or to its end.

        Returns how many rows were closed, freed and revived.
        """
        closed = freed = revived = 0
        for number, due in tuple(self._closing.items()):
            if due > now + GRACE_SECONDS + SKEW_SECONDS:
                self._closing[number] = now + GRACE_SECONDS
                continue
            if due > now or perf_counter() >= until:
                break
            outcome = self._finish_closing(number, now)
            freed += outcome == "freed"
            revived += outcome == "revived"
        high = self.table.high
        if self._cursor >= high:
            self._cursor = 0
        while self._cursor < high and perf_counter() < until:
            closed += self._close_if_idle(self._cursor, now)
            self._cursor += 1
        return closed, freed, revived

    def _close_if_idle(self, number: int, now: float) -> bool:
        """Close the row if it is idle. A row that a predecessor has closed is taken over."""
        table = self.table
        row = table.row(number)
        if number in self._closing or not table.words[row + at.ROW_HASH]:
            return False
        if table.words[row + at.ROW_GENERATION] & 1:
            self._closing[number] = table.words[row + at.ROW_CLOSING] / 1000 + GRACE_SECONDS
        elif self.idle(row, now):
            table.words[row + at.ROW_CLOSING] = milliseconds(now)
            table.words[row + at.ROW_GENERATION] += 1
            # Last, because it makes workers look at the generation.
            table.notify_readers(row)
            self._closing[number] = now + GRACE_SECONDS
            return True
        return False

    def _finish_closing(self, number: int, now: float) -> str:
        table = self.table
        row = table.row(number)
        if not table.file.lock():
            return "busy"
        try:
            del self._closing[number]
            if not table.words[row + at.ROW_HASH] or not table.words[row + at.ROW_GENERATION] & 1:
                return "wanted"
            if self.idle(row, now):
                table.free(number)
                return "freed"
            table.words[row + at.ROW_GENERATION] += 1
            table.notify_readers(row)
            return "revived"
        finally:
            table.file.unlock()

    def idle(self, row: int, now: float) -> bool:
        """Return whether the row had no count or claim for its window and IDLE_SECONDS more, and need not be
        retained.
        """
        table = self.table
        width = table.words[row + at.ROW_WIDTH] or 1
        rings = table.read_rings(row)
        newest = max(rings)
        _, high = bounds(cell_number(now, width), table.layout.cells)
        if newest >= high:
            # From before the clock was set back.
            newest = max((word for word in rings if word < high), default=0)
        counted = ((newest >> SHIFT) + 1) * width / 1e6
        born = table.words[row + at.ROW_BORN] / 1000
        if born <= now + SKEW_SECONDS:
            counted = max(counted, born)
        retention_seconds = PERIOD_RETENTION_SECONDS if table.words[row + at.ROW_STATE] & HAS_PERIODS else 0.0
        if (
            now - counted < table.layout.cells * width / 1e6 + IDLE_SECONDS
            or table.retained_until(row) + retention_seconds > now
        ):
            return False
        return not (table.words[row + at.ROW_STATE] & HAS_GAUGES and table.in_use(row))
