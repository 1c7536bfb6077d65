"""The use of a limit, read from its row by the limit's kind (kinds.py). Without a row the use is zero."""

from math import ceil
from typing import NamedTuple

from edgeproxy.edge.counters.cells import cell_number, width_us
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.bucket import compute_room
from edgeproxy.edge.limits.counts import seconds_until_gone
from edgeproxy.edge.limits.levels import compute_level, compute_scale
from edgeproxy.edge.limits.policy import RuleTerms


class Usage(NamedTuple):
    """The amount used, the amount left, and the whole seconds until the oldest count expires (0: none).

    For a bucket `used` is its level, which is empty after `reset` seconds; for concurrency, the requests in flight. For
    a hybrid both are the window's. `held_back` is unused, but reserved for other hosts while the hub is away.
    """

    used: int
    remaining: int
    reset: int
    held_back: int = 0


def usage_of_window(table: LimitTable, row: int | None, rule: RuleTerms, now: float) -> Usage:
    if row is None:
        return Usage(0, rule.limit, 0)
    cells = table.layout.cells
    width = width_us(rule.window, cells)
    cell = cell_number(now, width)
    counts = table.counts(row, cell)
    counted = sum(counts.values())
    held_back = min(counted, _withheld(table, row))
    if held_back == counted:
        return Usage(0, max(0, rule.limit - counted), 0, held_back)
    oldest = min(cell, *counts)
    reset = seconds_until_gone(oldest, cells, width, now)
    return Usage(counted - held_back, max(0, rule.limit - counted), reset, held_back)


def usage_of_bucket(table: LimitTable, row: int | None, rule: RuleTerms, now: float) -> Usage:
    if row is None:
        return Usage(0, rule.depth, 0)
    rate = rule.limit / rule.window
    scale = compute_scale(width_us(rule.window, table.layout.cells))
    heads = table.heads(row)
    level = compute_level(heads.each, heads.width, now, rate, scale).level
    # A worker adds equal tokens for rounding. Used and remaining tokens sum to the depth, or to more than it.
    level -= compute_room(rule.depth) - rule.depth
    filled = max(0, ceil(level))
    held_back = min(filled, _withheld(table, row))
    used = filled - held_back
    return Usage(used, max(0, rule.depth - filled), ceil((level - held_back) / rate) if used else 0, held_back)


def usage_of_hybrid(table: LimitTable, row: int | None, rule: RuleTerms, now: float) -> Usage:
    window = usage_of_window(table, row, rule, now)
    return window._replace(remaining=min(window.remaining, usage_of_bucket(table, row, rule, now).remaining))


def usage_of_concurrency(table: LimitTable, row: int | None, rule: RuleTerms, now: float) -> Usage:
    if row is None:
        return Usage(0, rule.limit, 0)
    taken = table.in_use(row)
    held_back = min(taken, _withheld(table, row))
    used = taken - held_back
    return Usage(used, max(0, rule.limit - taken), min(used, 1), held_back)


def _withheld(table: LimitTable, row: int) -> int:
    """Return the counts that the hub's column reserves for other hosts and that no host is known to have used."""
    return 0 if table.hub is None else table.hub.withheld(row)
