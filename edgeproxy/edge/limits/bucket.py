"""Buckets: `token_bucket`, which smooths the bursts that a window allows, and `hybrid`, which combines both.

A bucket of depth B that refills r a second admits at most B + r t in any t seconds, and refuses nothing that fits. It
is stored as a leaky bucket: the amount missing from the depth drains at r (Turner, "New directions in communications",
1986; equal to GCRA of ITU-T I.371). N workers that decide at once may exceed it by 2 (N − 1), as with a window.
"""

from math import ceil, floor

from edgeproxy.edge.limits.levels import LevelCounts
from edgeproxy.edge.limits.policy import RuleTerms
from edgeproxy.edge.limits.window import HUB_RETRY_SECONDS, SlidingWindow

ROUNDING_TOKENS = 2.0**-10
"""Extra tokens of depth that make up for rounded levels: an exact fit must fit."""
ROUNDING_PER_TOKEN = 2.0**-22
"""Further tokens for each token of a level: a few times one rounding of it."""


class TokenBucket(SlidingWindow):
    """A rule as it applies to one subject: a Policy (policy.py documents its methods)."""

    __slots__ = ("_room", "_seconds", "_tail", "depth", "rate")

    counts: LevelCounts

    def __init__(self, rule: RuleTerms, counts: LevelCounts, cost: int = 1, is_late: bool = False) -> None:
        super().__init__(rule, counts, cost, is_late)
        self.rate = rule.limit / rule.window
        """Tokens a second."""
        self.depth = rule.depth
        self._room = compute_room(rule.depth)
        self._seconds = -1
        self._tail = b""

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""
        return self.depth

    def left(self, now: float) -> int:
        """Return how much may still be charged at edge time `now` (seconds)."""
        counts = self.counts
        window = counts.window
        if not window.since <= now < window.until:
            window.advance(now)
        sync_at = counts.number * window.row_words + window.sync_at
        if counts.turn is not window.turn or window.words[sync_at] != counts.sync:
            counts.refresh(now)
        return self._fits(now) if counts.local is not None else floor(self._room - counts.level_now(now, self.rate))

    def _fits(self, now: float) -> int:
        """Return how much fits into this process's share of the bucket. Call it after a refresh."""
        share = self.counts.share
        return floor(compute_room(max(1, self.depth // share)) - self.counts.level_now(now, self.rate / share))

    def charge(self, cost: int = 1) -> None:
        """Count `cost` in the cell that `left` read, and in the level."""
        SlidingWindow.charge(self, cost)
        self.counts.pour(cost)

    def compute_wait(self, left: int, now: float, cost: int) -> int:
        """Return the whole seconds ≥ 1 until there is room for `cost`, or the bucket is empty. Call it after `left`."""
        return self._compute_drain_wait(cost)

    def _compute_drain_wait(self, cost: int) -> int:
        counts = self.counts
        if counts.is_shut:
            return HUB_RETRY_SECONDS
        depth = max(1, self.depth // counts.share)
        too_much = counts.level + min(0, cost - depth)
        # Another worker may read the level of a debt with its rounding, which exceeds the extra tokens.
        rounded = max(0.0, counts.level * ROUNDING_PER_TOKEN - compute_room(depth) + depth)
        # A little less, which the extra tokens cover, so that a float's last bit does not cost another second.
        return max(1, ceil((too_much + rounded - ROUNDING_TOKENS / 4) / counts.rate * counts.parts))

    def _reset(self, now: float) -> int:
        counts = self.counts
        return max(1, ceil((counts.level - ROUNDING_TOKENS / 4) / counts.rate))

    def tail(self, now: float) -> bytes:
        """Return the end of the RateLimit lines, after the number. Call it after `left`."""
        # Unlike a window's, it changes with every charge: within a second a bucket may go from empty to full.
        seconds = self._reset(now)
        if seconds != self._seconds:
            self._seconds = seconds
            self._tail = b";t=%d\r\n" % seconds
        return self._tail


def compute_room(depth: int) -> float:
    """Return the most that a bucket of this depth holds."""
    return depth + ROUNDING_TOKENS + depth * ROUNDING_PER_TOKEN


class Hybrid(TokenBucket):
    """A window, which bounds the total, and a bucket, which smooths it, on one row: both must have room."""

    __slots__ = ("_smooths",)

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""
        return min(self.limit, self.depth)

    def left(self, now: float) -> int:
        """Return how much may still be charged at edge time `now` (seconds): the lesser of the two."""
        window = SlidingWindow.left(self, now)
        counts = self.counts
        bucket = self._fits(now) if counts.local is not None else floor(self._room - counts.level_now(now, self.rate))
        # True if the bucket is closer to refusal. If neither has room, the window has the longer wait.
        self._smooths = bucket < window > 0
        return window if window < bucket else bucket

    def compute_wait(self, left: int, now: float, cost: int) -> int:
        """Return the whole seconds until both have room for `cost` if no other request comes."""
        window = SlidingWindow.left(self, now)
        bucket = self._fits(now)
        return max(
            0 if window >= cost else SlidingWindow.compute_wait(self, window, now, cost),
            0 if bucket >= cost else self._compute_drain_wait(cost),
        )

    def _reset(self, now: float) -> int:
        """Return the whole seconds for the `t` of the RateLimit field, from the one that is closer to refusal."""
        return TokenBucket._reset(self, now) if self._smooths else SlidingWindow._reset(self, now)
