"""What a subject has used of a limit, for those who only look: the supervisor's /limits."""

from typing import NamedTuple

from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import MASK, SHIFT, bounds, cell_number, width_us
from edgeproxy.counters.rows import LimitTable
from edgeproxy.limits.rule import Rule


class Usage(NamedTuple):
    """Counts in the window, what is left of the limit, and whole seconds until the oldest count leaves (0: none)."""

    used: int
    remaining: int
    reset: int


def look(table: LimitTable, rule: Rule, subject: bytes, now: float) -> Usage:
    """Sum the row of `subject` under `rule` at edge time `now`; claims no row and changes nothing."""
    row = table.peek(table.key(rule.key(subject)))
    if row is None:
        return Usage(0, rule.limit, 0)
    width = width_us(rule.window, table.layout.cells)
    low, high = bounds(cell_number(now, width), table.layout.cells)
    rings = table.words[row + at.FOREIGN : row + table.layout.heads].tolist()
    live = [word for word in rings if low <= word < high]
    if not live:
        return Usage(0, rule.limit, 0)
    used = sum(word & MASK for word in live)
    leaves = ((min(live) >> SHIFT) + table.layout.cells + 1) * width / 1e6
    return Usage(used, max(0, rule.limit - used), max(1, int(leaves - now) + 1))
