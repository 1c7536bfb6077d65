"""How fast Stripe may be asked: token buckets whose rate gives way, in all and of each endpoint. Pure, time is an
argument: that of any clock of seconds."""

MINUTE = 60.0
SHARE_MIN = 1 / 64
"""The least of its rate that is left however often it was halved."""


class Bucket:
    """So many calls a second at most, of which a second's worth may be made at once."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = self._most = rate
        self._free_at = now
        """When the next call may be made, if no others are kept in reserve."""
        self._halved_at = now - MINUTE
        self._refused_from = self._refused_at = now
        """From when on there were refusals again and again, and the last one; at first, when it began."""

    def delay(self, now: float) -> float:
        """Take the next place; return the seconds until it is this call's turn."""
        self._recover(now)
        self._free_at = max(self._free_at, now - 1.0) + 1.0 / self.rate
        return max(0.0, self._free_at - now)

    def halve(self, now: float) -> None:
        """Make fewer calls from now on: at most once a second, as what was under way is refused together."""
        if now - self._refused_at >= MINUTE:
            self._refused_from = now
        self._refused_at = now
        if now - self._halved_at >= 1.0:
            self.rate = max(self.rate / 2, self._most * SHARE_MIN)
            self._halved_at = now

    @property
    def is_crowded(self) -> bool:
        """Whether fewer calls are made than may be."""
        return self.rate < self._most

    def crowded(self, now: float) -> float:
        """Seconds for which there were refusals without a quiet minute between; 0 in a quiet one."""
        return self._refused_at - self._refused_from if self.quiet(now) < MINUTE else 0.0

    def quiet(self, now: float) -> float:
        """Seconds since the last refusal."""
        return now - self._refused_at

    def _recover(self, now: float) -> None:
        """Each quiet minute doubles the rate again."""
        if self.is_crowded and now - self._halved_at >= MINUTE:
            self.rate = min(self._most, self.rate * 2)
            self._halved_at = now


class Pace:
    """So many calls a second in all, and so many of each endpoint."""

    def __init__(self, whole: float, endpoint: float) -> None:
        self.whole = whole
        self.endpoint = endpoint
        self._buckets: dict[str, Bucket] = {}
        """By endpoint; under an empty name, of all calls."""

    def wait(self, endpoint: str, now: float) -> float:
        """Take the next place of an endpoint; return the seconds until it is this call's turn."""
        return max(self._take("", self.whole, now), self._take(endpoint, self.endpoint, now))

    def _take(self, name: str, rate: float, now: float) -> float:
        if name not in self._buckets:
            self._buckets[name] = Bucket(rate, now - 1.0)  # A second's worth may be made at once.
        return self._buckets[name].delay(now)
