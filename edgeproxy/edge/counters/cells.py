"""Cells: slices of a window, numbered from 2025-01-01, each a word `cell << 28 | count` in slot `cell % ring`.

A window of W seconds is C cells of w = W / C. The ring has R slots, R ≥ C + 3, since a reader counts the cells c − C …
c + 2: the oldest in full, and two ahead for writers whose clock is a little ahead. docs/design/limits.md#cells explains
why. C and R are in the header of the table's file: 28 of 32 for customers, 13 of 16 for addresses.
"""

from collections.abc import Iterable
from functools import lru_cache

SHIFT = 28
MASK = (1 << SHIFT) - 1
"""The largest count of a word; counts saturate there."""

CELLS_AHEAD = 2
"""Cells after the reader's own that it counts."""

CELL_US_MIN = 10_000
"""Microseconds of the shortest cell: with it 36 bits number cells until 2046."""


WIDTHS_MAX = 1024
"""Cached widths. Rows of one rule share a number, and do not each have one."""


@lru_cache(WIDTHS_MAX)
def width_us(window: float, cells: int) -> int:
    """Return the microseconds of a cell, if `cells` of them must span `window` seconds: never less than W / C."""
    return max(CELL_US_MIN, -(-round(window * 1_000_000) // cells))


def cell_number(now: float, width: int) -> int:
    """Return the cell at edge time `now` (seconds), for cells of `width` microseconds.

    Every process must get an equal number for a `now`, so this is the one formula: hot code keeps `per_second(width)`
    and multiplies likewise.
    """
    return int(now * per_second(width))


@lru_cache(WIDTHS_MAX)
def per_second(width: int) -> float:
    """Return the number of cells of `width` microseconds in a second."""
    return 1_000_000 / width


def pack(cell: int, count: int) -> int:
    """Return the word of a cell; the count saturates."""
    return cell << SHIFT | min(count, MASK)


def unpack(word: int) -> tuple[int, int]:
    """Return the cell and the count of a word."""
    return word >> SHIFT, word & MASK


def bounds(cell: int, cells: int) -> tuple[int, int]:
    """Return (low, high): the words w that count at `cell` in a window of `cells` have low ≤ w < high."""
    return max(1, cell - cells << SHIFT), cell + CELLS_AHEAD + 1 << SHIFT


def counts(words: Iterable[int], cell: int, cells: int) -> dict[int, int]:
    """Return the sums of these words by cell, for the cells that count at `cell` in a window of `cells`."""
    low, high = bounds(cell, cells)
    counted: dict[int, int] = {}
    for word in words:
        if low <= word < high:
            counted[word >> SHIFT] = counted.get(word >> SHIFT, 0) + (word & MASK)
    return counted


def milliseconds(now: float) -> int:
    """Return edge time (seconds) as a word of milliseconds; times before 2025 count as its beginning."""
    word = int(now * 1000)
    return word if word > 0 else 0
