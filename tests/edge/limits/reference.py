"""Exact and slow references of the limit algorithms, computed with fractions from a log of all admitted requests.

Callers add requests in order of time. Times are edge time in seconds, as the tables use it.
"""

from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.limits.policy import Policy


def ask(policy: Policy, now: float, cost: int = 1) -> bool:
    """Decide on one request and charge it if it is admitted. Return whether it is."""
    if policy.left(now) < cost:
        return False
    policy.charge(cost)
    return True


class Log:
    """All admitted requests, each with its time and its cost."""

    def __init__(self) -> None:
        self.entries: list[tuple[Fraction, Fraction | int]] = []

    def add(self, now: float, cost: int) -> None:
        """Add an admitted request."""
        self.entries.append((Fraction(now), cost))

    def within(self, now: float, span: float | Fraction) -> Fraction | int:
        """Return the sum of the costs in the last `span` seconds, without a request exactly `span` seconds ago."""
        since = Fraction(now) - Fraction(span)
        return sum(cost for moment, cost in self.entries if moment > since)


class ExactWindow(Log):
    """A sliding window: at most `limit` in any `window` seconds."""

    def __init__(self, limit: int, window: float) -> None:
        super().__init__()
        self.limit = limit
        self.window = Fraction(window)

    def has_room(self, now: float, cost: int, longer: float | Fraction = 0) -> bool:
        """Return whether `cost` fits into the window, or into one that is `longer` by this many seconds."""
        return self.within(now, self.window + Fraction(longer)) + cost <= self.limit

    def passes_at(self, now: float, cost: int) -> Fraction:
        """Return the earliest time for `cost` (at most the limit) to fit if no other request comes."""
        moment, used = Fraction(now), self.within(now, self.window)
        for came, one in self.entries:
            if came > Fraction(now) - self.window and used + cost > self.limit:
                moment, used = came + self.window, used - one
        return moment


class ExactBucket(Log):
    """A token bucket: in any period at most `depth`, plus `limit` per `window` for the length of the period."""

    def __init__(self, limit: int, window: float, depth: int) -> None:
        super().__init__()
        self.rate = limit / Fraction(window)
        self.depth = depth

    def level(self, now: float) -> Fraction:
        """Return the level: over all start times, the greatest excess of costs over the drain since then.

        See docs/design/limits.md#decisions.
        """
        level = came = Fraction(0)
        for moment, cost in reversed(self.entries):
            came += cost
            level = max(level, came - self.rate * (Fraction(now) - moment))
        return level

    def gather(self, now: float) -> None:
        """Replace the log with a single entry of the present level. Later levels stay equal and are quicker."""
        self.entries = [(Fraction(now), self.level(now))]

    def has_room(self, now: float, cost: int, tolerance: float | Fraction = 0) -> bool:
        """Return whether `cost` fits if the level were higher by `tolerance`."""
        return self.level(now) + cost + Fraction(tolerance) <= self.depth

    def passes_at(self, now: float, cost: int) -> Fraction:
        """Return the earliest time for `cost` (at most the depth) to fit if no other request comes."""
        return Fraction(now) + max(Fraction(0), (self.level(now) + cost - self.depth) / self.rate)


class ExactQuota:
    """A quota: the amount included in each calendar `day` or `month` of a time zone."""

    def __init__(self, included: int, per: str, zone: ZoneInfo) -> None:
        self.included, self.per, self.zone = included, per, zone
        self.used: dict[str, int] = {}

    def period(self, now: float) -> str:
        """Return the local date of the day, or its month, in the time zone."""
        local = datetime.fromtimestamp(now + EPOCH, UTC).astimezone(self.zone)
        return local.strftime("%Y-%m-%d" if self.per == "day" else "%Y-%m")

    def left(self, now: float) -> int:
        """Return the remaining amount, negative if usage exceeds the included amount."""
        return self.included - self.used.get(self.period(now), 0)

    def add(self, now: float, amount: int) -> None:
        """Add an amount, which may be negative, to the usage of the period."""
        period = self.period(now)
        self.used[period] = self.used.get(period, 0) + amount
