"""What each algorithm promises, exact and slow: from a log of all that was let through, in fractions.

What happens is told in the order of its moments, which are edge time in seconds, as the tables are given them.
"""

from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.limits.policy import Policy


def ask(policy: Policy, now: float, cost: int = 1) -> bool:
    """One decision."""
    if policy.left(now) < cost:
        return False
    policy.charge(cost)
    return True


class Log:
    """All that was let through: each with its moment and its cost."""

    def __init__(self) -> None:
        self.entries: list[tuple[Fraction, Fraction | int]] = []

    def add(self, now: float, cost: int) -> None:
        """One more."""
        self.entries.append((Fraction(now), cost))

    def within(self, now: float, span: float | Fraction) -> Fraction | int:
        """What came in the last `span` seconds, one just so long ago not included."""
        since = Fraction(now) - Fraction(span)
        return sum(cost for moment, cost in self.entries if moment > since)


class ExactWindow(Log):
    """At most `limit` in any `window` seconds."""

    def __init__(self, limit: int, window: float) -> None:
        super().__init__()
        self.limit = limit
        self.window = Fraction(window)

    def has_room(self, now: float, cost: int, longer: float | Fraction = 0) -> bool:
        """Whether `cost` fits what came in the window, or in one that is so much longer."""
        return self.within(now, self.window + Fraction(longer)) + cost <= self.limit

    def passes_at(self, now: float, cost: int) -> Fraction:
        """When `cost`, which is not above the limit, fits if nothing else comes: from then on."""
        moment, used = Fraction(now), self.within(now, self.window)
        for came, one in self.entries:
            if came > Fraction(now) - self.window and used + cost > self.limit:
                moment, used = came + self.window, used - one
        return moment


class ExactBucket(Log):
    """At most `depth`, and what `limit` in a `window` makes of the time, in any time."""

    def __init__(self, limit: int, window: float, depth: int) -> None:
        super().__init__()
        self.rate = limit / Fraction(window)
        self.depth = depth

    def level(self, now: float) -> Fraction:
        """The most that came since any moment, beyond what has drained since then (docs/design/limits.md#decisions)."""
        level = came = Fraction(0)
        for moment, cost in reversed(self.entries):
            came += cost
            level = max(level, came - self.rate * (Fraction(now) - moment))
        return level

    def gather(self, now: float) -> None:
        """Remember what is in the bucket at this moment and no more: that says the same later on, and is quicker."""
        self.entries = [(Fraction(now), self.level(now))]

    def has_room(self, now: float, cost: int, tolerance: float | Fraction = 0) -> bool:
        """Whether `cost` fits, if that much more were in the bucket."""
        return self.level(now) + cost + Fraction(tolerance) <= self.depth

    def passes_at(self, now: float, cost: int) -> Fraction:
        """When `cost`, which is not above the depth, fits if nothing else comes: from then on."""
        return Fraction(now) + max(Fraction(0), (self.level(now) + cost - self.depth) / self.rate)


class ExactQuota:
    """What is included in each calendar `day` or `month` of a time zone."""

    def __init__(self, included: int, per: str, zone: ZoneInfo) -> None:
        self.included, self.per, self.zone = included, per, zone
        self.used: dict[str, int] = {}

    def period(self, now: float) -> str:
        """The day or the month as a calendar on the wall there says it."""
        local = datetime.fromtimestamp(now + EPOCH, UTC).astimezone(self.zone)
        return local.strftime("%Y-%m-%d" if self.per == "day" else "%Y-%m")

    def left(self, now: float) -> int:
        """What is still included; negative where more was used than is."""
        return self.included - self.used.get(self.period(now), 0)

    def add(self, now: float, amount: int) -> None:
        """So much more, or less."""
        period = self.period(now)
        self.used[period] = self.used.get(period, 0) + amount
