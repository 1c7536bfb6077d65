"""The sliding window: never more than L in any window of W, never refused while the last W + w hold less than L.

W is the window, and w = W / C is one of its cells. The oldest cell counts in full: weighting it would let more than L
through (docs/design/limits.md#cells). Refused requests are not counted. Several workers that decide at once may exceed
L by two each, less two (docs/design/limits.md#decisions).
"""

from edgeproxy.edge.counters.cells import MASK
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.limits.counts import NO_CELL, ROUNDING_SECONDS, Counts, format_tail, seconds_until_gone
from edgeproxy.edge.limits.headroom import BEYOND_HEADROOM
from edgeproxy.edge.limits.policy import RuleTerms

NO_WAIT = (NO_CELL, 0, 0, 0, None)
"""The wait of a policy that has refused nothing yet."""
HUB_RETRY_SECONDS = 5
"""Seconds until a retry if nothing passes until the hub is back: about when the hub is tried again (hub/breaker.py)."""


class SlidingWindow:
    """A rule as it applies to one subject: a Policy (policy.py documents its methods)."""

    __slots__ = ("_needs", "_wait", "cost", "counts", "limit", "rule")

    def __init__(self, rule: RuleTerms, counts: Counts, cost: int = 1, is_late: bool = False) -> None:
        """`is_late`: requests are charged by their answers (`charge_late`), and `cost` is none of theirs."""
        self.rule = rule
        self.cost = cost
        self._needs = BEYOND_HEADROOM if is_late else cost
        self.limit = rule.limit
        self.counts = counts
        """The counts of its row."""
        self._wait: tuple[int, int, int, int, float | None] = NO_WAIT
        """The moment when a request passes, and before it the cell, version, rest and cost that it was computed for."""

    @property
    def name(self) -> str:
        """The label of the limit."""
        return self.rule.name

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""
        return self.limit

    def left(self, now: float) -> int:
        """Return how much may still be charged at edge time `now` (seconds)."""
        counts = self.counts
        window = counts.window
        if not window.since <= now < window.until:
            window.advance(now)
        words, number = window.words, counts.number
        if counts.turn is not window.turn or words[number * window.row_words + window.sync_at] != counts.sync:
            counts.refresh(now)
            if counts.local is not None:
                return max(1, self.limit // counts.local.share) - counts.closed - counts.own
            window = counts.window
            words = window.words
        elif window.versions[number] != counts.version:
            counts.reload()
        left = self.limit - counts.closed - counts.own
        if window.siblings:
            headroom = counts.headroom
            if headroom is not None:
                known = left - headroom.seen
                if known < 1:
                    if now < headroom.full_until:
                        return known
                elif (
                    counts.own + self._needs <= headroom.until
                    and words[headroom.alarm_at] == headroom.alarm
                    and headroom.limit == self.limit
                ):
                    return known
                return counts.read_siblings(left, self.limit, self.cost, now)
            # A sibling's word belongs to this cell, or to one long ago, or, if its clock was ahead, to one to come.
            base, rings = window.base, counts.number * window.rings_words
            for sibling in window.siblings:
                live = words[rings + sibling] - base
                if 0 < live <= MASK:
                    left -= live
        return left

    def charge(self, cost: int = 1) -> None:
        """Count `cost` in the cell that `left` read."""
        counts = self.counts
        window = counts.window
        words = window.words
        own = counts.own + cost
        if own > MASK:
            own = MASK
        counts.own = own
        words[counts.number * window.rings_words + window.own_at] = window.base + own
        counts.cum = cum = counts.cum + cost
        if IS_WEAK:
            fence()  # A count is in its cell before it is in the sum.
        words[counts.number * window.row_words + window.cum_at] = cum

    def charge_late(self, cost: int) -> None:
        """Count a `cost` that was not known to the decision."""
        self.charge(cost)
        counts = self.counts
        if counts.headroom is not None:
            counts.headroom.follow_charge(counts.own)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until `cost` passes if no other request comes; 0 if it passes now.

        A cost above the limit never passes.
        """
        left = self.left(now)
        return 0 if left >= cost else self.compute_wait(left, now, cost)

    def compute_wait(self, left: int, now: float, cost: int) -> int:
        """Return the whole seconds ≥ 1 until `cost` passes; only `left` passes now. Call it after `left`."""
        counts = self.counts
        # The moment stays until more is counted in a cell, so a flood of refusals is cheap.
        cell, sync, rest, price, passes_at = self._wait
        if rest != left or cell != counts.window.cell or sync != counts.sync or price != cost:
            passes_at = self._compute_free_time(cost - left)
            self._wait = (counts.window.cell, counts.sync, left, cost, passes_at)
        if passes_at is None:
            return HUB_RETRY_SECONDS
        wait = int(passes_at - now + ROUNDING_SECONDS) + 1
        return wait if wait > 1 else 1

    def _compute_free_time(self, needed: int) -> float | None:
        """Return the moment when the oldest cells with `needed` of the counts have left the window.

        None if that is not before the hub is back.
        """
        counts = self.counts
        window = counts.window
        leaves = window.cell
        for cell, count in sorted(counts.live().items()):
            leaves = cell + window.cells + 1
            needed -= count
            if needed <= 0:
                break
        return None if needed > 0 and counts.withheld else leaves * window.width / 1e6

    def reset(self, now: float) -> int:
        """Return the whole seconds until the oldest count has left the window; without any, as if this request were
        counted.
        """
        self.left(now)
        return self._reset(now)

    def _reset(self, now: float) -> int:
        counts = self.counts
        if counts.is_shut:
            return HUB_RETRY_SECONDS
        return seconds_until_gone(counts.oldest, counts.window.cells, counts.window.width, now)

    def tail(self, now: float) -> bytes:
        """Return the end of the RateLimit lines, after the number; computed once a second. Call it after `left`."""
        counts = self.counts
        window = counts.window
        if window.has_hub and counts.is_shut:
            return format_tail(HUB_RETRY_SECONDS)
        if now < window.tails_until:
            try:
                return window.tails[counts.age]
            except KeyError:
                pass
        return window.format_tail(counts.age, now)
