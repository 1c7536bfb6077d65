"""A row in a process's own memory: it holds counts while the table has no row to give."""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import MASK, SHIFT, pack
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.memory_order import fence
from edgeproxy.edge.counters.rows import LimitTable


class LocalRow:
    """A table of one row and one column, with the fields of a LimitTable that counting needs."""

    __slots__ = ("first_rings", "head_at", "span", "words")

    first_row = 0
    own_at = 0
    rings_words = 0
    siblings: tuple[int, ...] = ()
    siblings_at: tuple[int, ...] = ()
    far_span = 0, 0

    def __init__(self, ring: int, cells: int) -> None:
        layout = Layout("local", rows=1, columns=1, ring=ring, cells=cells, width=at.LONE_HEAD_WORDS)
        self.words = memoryview(bytearray(layout.row_words * at.WORD)).cast("Q")
        self.first_rings = layout.first_rings - layout.first_row
        self.span = ring
        self.head_at = layout.head(0)

    def read_heads(self, row: int) -> list[int]:
        """Return the words of the only head, which this process alone writes."""
        heads: list[int] = self.words[row + self.head_at : row + self.head_at + at.LONE_HEAD_WORDS].tolist()
        return heads

    def pour(self, table: LimitTable, row: int, counted: int) -> None:
        """Add the counts of this row to this process's own column of a row in the table; `counted` to its CUM."""
        words = table.words
        own = table.rings_of(row) + table.own_at
        for slot, word in enumerate(self.words[self.first_rings : self.first_rings + self.span].tolist()):
            there = words[own + slot]
            if word >> SHIFT == there >> SHIFT:
                words[own + slot] = pack(word >> SHIFT, (word & MASK) + (there & MASK))
            elif word > there:
                words[own + slot] = word
        fence()
        words[row + table.head_at + at.CUM] += counted
