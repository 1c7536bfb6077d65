"""The hub's column in a table of limits that hosts share: what the others have counted, and what the hub allows.

The supervisor that tells the hub writes it, workers read it; each method is one read or write of the map. `row` is the
word at which a row begins. Moments are edge time in seconds. Decisions read the same words without these methods
(edge/limits/gate.py, edge/limits/slots.py), as they are made at every request.
"""

from collections.abc import Mapping
from typing import Literal

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import MASK, SHIFT, counts, milliseconds
from edgeproxy.edge.counters.layout import Layout

OnLoss = Literal["full", "share", "deny"]
"""What a host lets through while the hub is away: all of a limit, its part of it, or nothing."""
ON_LOSS: dict[OnLoss, int] = {"full": at.FULL, "share": at.SHARE, "deny": at.DENY}
OF_ON_LOSS: dict[int, OnLoss] = {word: on_loss for on_loss, word in ON_LOSS.items()}

THRESHOLD_BITS = 32
NEVER = (1 << THRESHOLD_BITS) - 1
"""As a threshold: nobody need ask, or tell."""
HELD = NEVER << THRESHOLD_BITS | NEVER
"""Both thresholds of a row that the supervisor holds to this host's part, while the hub is away."""


class HubColumn:
    """The hub's column of one table, and what the table's header says of the hub."""

    __slots__ = ("_cells", "_head", "_ring", "_rings", "_words")

    def __init__(self, words: memoryview, layout: Layout, column: int) -> None:
        self._words = words
        self._head = layout.head(column)
        self._rings = layout.rings + layout.ring * column
        self._ring, self._cells = layout.ring, layout.cells

    # ---- of the whole table

    @property
    def is_known(self) -> bool:
        """Whether any supervisor has ever said how many hosts there are."""
        return self._words[at.HOSTS] != 0

    @property
    def hosts(self) -> int:
        """How many hosts share the limits, this one among them, as the hub said last; 1 where it never did."""
        return max(1, self._words[at.HOSTS] & ~at.AWAY)

    @property
    def is_away(self) -> bool:
        """Whether the hub cannot be reached."""
        return self._words[at.HOSTS] >= at.AWAY

    def write_hosts(self, hosts: int, *, is_away: bool) -> None:
        """So many hosts share the limits, and whether the hub cannot be reached."""
        self._words[at.HOSTS] = hosts | (at.AWAY if is_away else 0)

    def write_away(self) -> None:
        """The hub cannot be reached; how many hosts there are is as it was."""
        self._words[at.HOSTS] |= at.AWAY

    @property
    def on_loss(self) -> OnLoss:
        """What this host lets through while the hub is away."""
        return OF_ON_LOSS[self._words[at.ON_LOSS]]

    @on_loss.setter
    def on_loss(self, on_loss: OnLoss) -> None:
        self._words[at.ON_LOSS] = ON_LOSS[on_loss]

    # ---- of a row: what others have counted

    def counts(self, row: int, cell: int) -> dict[int, int]:
        """What others have counted in each cell that counts at `cell`."""
        ring = row + self._rings
        return counts(self._words[ring : ring + self._ring].tolist(), cell, self._cells)

    def write_counts(self, row: int, cell: int, counted: Mapping[int, int]) -> None:
        """Others have counted this (cell -> count); `cell` is the present one. Cells that are not named are emptied."""
        words, size, ring = self._words, self._ring, row + self._rings
        there = words[ring : ring + size].tolist()
        if not counted and not any(there):
            return
        # Cells far ahead are of a clock that was wrong, and would take the places of others.
        lowest = cell - self._cells
        fitting = range(lowest, lowest + size)
        by_slot = {of % size: of << SHIFT | min(counted[of], MASK) for of in counted if of in fitting}
        for slot, word in enumerate(there):
            if (word_now := by_slot.get(slot, 0)) != word:
                words[ring + slot] = word_now

    def write_total(self, row: int, counted: int) -> None:
        """So much was ever counted by others. Write a level that knows of it first: else it would be on top of that."""
        self._words[row + self._head + at.CUM] = counted

    def write_level(self, row: int, level: int, seen: int) -> None:
        """A bucket's level, as edge/limits/levels.py packs it, and the counts of all columns that it knows of."""
        self._words[row + self._head + at.LEVEL] = level
        self._words[row + self._head + at.SEEN_CUM] = seen

    def write_period(self, row: int, period: int, counted: int) -> None:
        """Others have counted so much of a quota in the calendar period of this number, or what the ledger knows of."""
        words, head = self._words, row + self._head
        if words[head + at.LEDGER_PERIOD] == period:
            counted = max(counted, words[head + at.LEDGER])
        # In this order: who reads in between finds nothing counted, in the old period or in the new one.
        if words[head + at.PERIOD] != period:
            words[head + at.CUM] = 0
            words[head + at.PERIOD] = period
        words[head + at.CUM] = counted

    def write_ledger(self, row: int, period: int, counted: int, until: float) -> None:
        """As the ledger has it others have counted so much of a quota at least, in the calendar period of this number.

        The row is wanted until the period ends.
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
        """How much others have in use, in a row of concurrency."""
        return self._words[row + self._head + at.GAUGE] & at.COUNT_MASK

    def write_in_use(self, row: int, count: int, *, withheld: bool = False) -> None:
        """Others have so much in use; `withheld`: nobody is known to, and it keeps this host to its part."""
        count = min(count, at.COUNT_MASK)
        self._words[row + self._head + at.GAUGE] = count
        self._words[row + self._head + at.WITHHELD] = count if withheld else 0

    def withheld(self, row: int) -> int:
        """How much of what stands here for others nobody is known to have used: it keeps this host to its part."""
        return self._words[row + self._head + at.WITHHELD]

    def withhold(self, row: int, withheld: int) -> None:
        """So much of what stands here nobody is known to have used."""
        self._words[row + self._head + at.WITHHELD] = withheld

    # ---- of a row: what the hub allows

    def allow(self, row: int, ask: int, tell: int) -> None:
        """This host may count more than `ask` that the hub does not know of only after asking, and tells it of `tell`.

        Counts; what is above NEVER is taken for NEVER.
        """
        self._words[row + self._head + at.THRESHOLDS] = min(ask, NEVER) << THRESHOLD_BITS | min(tell, NEVER)

    def hold(self, row: int) -> None:
        """While the hub is away the counts written here hold this host to its part; workers neither ask nor tell."""
        self._words[row + self._head + at.THRESHOLDS] = HELD

    def shut(self, row: int) -> None:
        """Nothing passes until the hub is there again."""
        self._words[row + self._head + at.THRESHOLDS] = 0

    def is_held(self, row: int) -> bool:
        """Whether `hold` was the last to be said."""
        return self._words[row + self._head + at.THRESHOLDS] == HELD

    def asking_is_vain(self, row: int, now: float) -> bool:
        """Whether the hub has just said that nothing is left."""
        return self._words[row + self._head + at.NO_USE_UNTIL] > now * 1000

    def write_vain_until(self, row: int, until: float) -> None:
        """Until then asking the hub is of no use; 0.0: it is of use."""
        self._words[row + self._head + at.NO_USE_UNTIL] = milliseconds(until)

    def warm_until(self, row: int) -> float:
        """Until when the hub's last answer is good."""
        return self._words[row + self._head + at.WARM_UNTIL] / 1000

    def is_warm(self, row: int, now: float) -> bool:
        """Whether the hub's last answer is good still."""
        return self._words[row + self._head + at.WARM_UNTIL] > now * 1000

    def write_warm_until(self, row: int, until: float) -> None:
        """Until then the hub's last answer is good; 0.0: it is not."""
        self._words[row + self._head + at.WARM_UNTIL] = milliseconds(until)
