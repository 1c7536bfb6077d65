"""The hub's column in a table of limits that hosts share: the counts of other hosts, and the hub's permissions.

The supervisor that reports to the hub writes it, workers read it; each method is one read or write of the map. `row` is
the first word of a row. Moments are edge time in seconds. Decisions read these words directly, without the methods
(edge/limits/gate.py, edge/limits/slots.py), as every request needs one.
"""

from collections.abc import Mapping
from typing import Literal

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import MASK, SHIFT, counts, milliseconds
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.memory_order import fence

OnLoss = Literal["full", "share", "deny"]
"""The part of a limit that a host admits while the hub is away: all, its share, or none."""
ON_LOSS: dict[OnLoss, int] = {"full": at.FULL, "share": at.SHARE, "deny": at.DENY}
OF_ON_LOSS: dict[int, OnLoss] = {word: on_loss for on_loss, word in ON_LOSS.items()}

THRESHOLD_BITS = 32
NEVER = (1 << THRESHOLD_BITS) - 1
"""A threshold that no count reaches: workers need not ask or report."""
HELD = NEVER << THRESHOLD_BITS | NEVER
"""Both thresholds of a row whose supervisor keeps this host to its share while the hub is away."""


class HubColumn:
    """The hub's column of one table, and the words of the table's header about the hub."""

    __slots__ = ("_cells", "_first", "_head", "_ring", "_rings", "_rings_words", "_stride", "_words")

    def __init__(self, words: memoryview, layout: Layout, column: int) -> None:
        self._words = words
        self._head = layout.head(column)
        self._first, self._stride = layout.first_row, layout.row_words
        self._rings, self._rings_words = layout.first_rings + layout.ring_at(column), layout.rings_words
        self._ring, self._cells = layout.ring, layout.cells

    # ---- of the whole table

    @property
    def is_known(self) -> bool:
        """True if a supervisor has ever recorded the number of hosts."""
        return self._words[at.HOSTS] != 0

    @property
    def hosts(self) -> int:
        """Hosts that share the limits by the hub's last answer, this one included; 1 before the first answer."""
        return max(1, self._words[at.HOSTS] & ~at.AWAY)

    @property
    def is_away(self) -> bool:
        """True if the hub cannot be reached."""
        return self._words[at.HOSTS] >= at.AWAY

    def write_hosts(self, hosts: int, *, is_away: bool) -> None:
        """Record how many hosts share the limits, and whether the hub cannot be reached."""
        self._words[at.HOSTS] = hosts | (at.AWAY if is_away else 0)

    def write_away(self) -> None:
        """Record that the hub cannot be reached; the number of hosts stays."""
        self._words[at.HOSTS] |= at.AWAY

    @property
    def on_loss(self) -> OnLoss:
        """This host's policy while the hub is away."""
        return OF_ON_LOSS[self._words[at.ON_LOSS]]

    @on_loss.setter
    def on_loss(self, on_loss: OnLoss) -> None:
        self._words[at.ON_LOSS] = ON_LOSS[on_loss]

    # ---- of a row: the counts of others

    def counts(self, row: int, cell: int) -> dict[int, int]:
        """Return the counts of other hosts in each cell that counts at `cell`."""
        ring = self._ring_of(row)
        return counts(self._words[ring : ring + self._ring].tolist(), cell, self._cells)

    def write_counts(self, row: int, cell: int, counted: Mapping[int, int]) -> None:
        """Write the counts of other hosts (cell -> count); `cell` is the present one.

        Cells that are not named are emptied.
        """
        words, size, ring = self._words, self._ring, self._ring_of(row)
        there = words[ring : ring + size].tolist()
        if not counted and not any(there):
            return
        # Cells far ahead come from a clock that was wrong, and would take the places of others.
        lowest = cell - self._cells
        fitting = range(lowest, lowest + size)
        by_slot = {of % size: of << SHIFT | min(counted[of], MASK) for of in counted if of in fitting}
        for slot, word in enumerate(there):
            if (word_now := by_slot.get(slot, 0)) != word:
                words[ring + slot] = word_now

    def _ring_of(self, row: int) -> int:
        return self._rings + (row - self._first) // self._stride * self._rings_words

    def write_total(self, row: int, counted: int) -> None:
        """Write the total count of other hosts.

        Write a level that includes it first: otherwise it would be added to that.
        """
        fence()
        self._words[row + self._head + at.CUM] = counted

    def write_level(self, row: int, level: int, seen: int) -> None:
        """Write a bucket's level, as edge/limits/levels.py packs it, and the counts of all columns that it includes."""
        self._words[row + self._head + at.LEVEL] = level
        fence()
        self._words[row + self._head + at.SEEN_CUM] = seen

    def write_period(self, row: int, period: int, counted: int) -> None:
        """Write the count of other hosts of a quota in the calendar period of this number, or the ledger's count."""
        words, head = self._words, row + self._head
        if words[head + at.LEDGER_PERIOD] == period:
            counted = max(counted, words[head + at.LEDGER])
        # In this order: a process that reads in between finds nothing counted, in the old period or in the new one.
        if words[head + at.PERIOD] != period:
            words[head + at.CUM] = 0
            fence()
            words[head + at.PERIOD] = period
        words[head + at.CUM] = counted

    def write_ledger(self, row: int, period: int, counted: int, until: float) -> None:
        """Write the ledger's count of a quota for other hosts, a lower bound, in the calendar period of this number.

        The row is retained until the period ends.
        """
        words, head = self._words, row + self._head
        if words[head + at.LEDGER_PERIOD] == period:
            counted = max(counted, words[head + at.LEDGER])
        words[head + at.LEDGER] = counted
        words[head + at.LEDGER_PERIOD] = period
        words[head + at.UNTIL] = milliseconds(until)
        there = words[head + at.PERIOD]
        if there <= period:
            self.write_period(row, period, words[head + at.CUM] if there == period else 0)

    def in_use(self, row: int) -> int:
        """Return how much other hosts have in use, in a row of concurrency."""
        return self._words[row + self._head + at.GAUGE] & at.COUNT_MASK

    def write_in_use(self, row: int, count: int, *, withheld: bool = False) -> None:
        """Write how much other hosts have in use.

        `withheld`: its use is not certain, and it keeps this host to its share.
        """
        count = min(count, at.COUNT_MASK)
        self._words[row + self._head + at.GAUGE] = count
        self._words[row + self._head + at.WITHHELD] = count if withheld else 0

    def withheld(self, row: int) -> int:
        """Return the uncertain part of the hub's column: it keeps this host to its share."""
        return self._words[row + self._head + at.WITHHELD]

    def withhold(self, row: int, withheld: int) -> None:
        """Write the uncertain part of the hub's column."""
        self._words[row + self._head + at.WITHHELD] = withheld

    # ---- of a row: the hub's permissions

    def allow(self, row: int, ask: int, tell: int) -> None:
        """Write the counts unknown to the hub above which this host must ask first (`ask`), and should report (`tell`).

        Counts above NEVER are stored as NEVER.
        """
        self._words[row + self._head + at.THRESHOLDS] = min(ask, NEVER) << THRESHOLD_BITS | min(tell, NEVER)

    def hold(self, row: int) -> None:
        """Keep this host to its share by the counts written here, while the hub is away; workers neither ask nor
        report.
        """
        self._words[row + self._head + at.THRESHOLDS] = HELD

    def shut(self, row: int) -> None:
        """Pass nothing until the hub is back."""
        self._words[row + self._head + at.THRESHOLDS] = 0

    def is_held(self, row: int) -> bool:
        """Return whether `hold` was called last."""
        return self._words[row + self._head + at.THRESHOLDS] == HELD

    def is_asking_useless(self, row: int, now: float) -> bool:
        """Return whether the hub has just answered that nothing is left."""
        return self._words[row + self._head + at.NO_USE_UNTIL] > now * 1000

    def write_useless_until(self, row: int, until: float) -> None:
        """Write the moment until which asking the hub is useless; 0.0: it is useful."""
        self._words[row + self._head + at.NO_USE_UNTIL] = milliseconds(until)

    def warm_until(self, row: int) -> float:
        """Return the moment until which the hub's last answer is valid."""
        return self._words[row + self._head + at.WARM_UNTIL] / 1000

    def is_warm(self, row: int, now: float) -> bool:
        """Return whether the hub's last answer is still valid."""
        return self._words[row + self._head + at.WARM_UNTIL] > now * 1000

    def write_warm_until(self, row: int, until: float) -> None:
        """Write the moment until which the hub's last answer is valid; 0.0: it is not."""
        self._words[row + self._head + at.WARM_UNTIL] = milliseconds(until)
