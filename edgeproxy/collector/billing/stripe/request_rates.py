"""Rates of requests to Stripe: token buckets with an adaptive rate, in total and per endpoint.

Pure: time is an argument, from any clock in seconds.
"""

MINUTE = 60.0
SHARE_MIN = 1 / 64
"""The smallest share of the rate that halving may leave."""


class Bucket:
    """A rate of calls per second. A burst may have the calls of one second."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = self._rate_max = rate
        self._free_at = now
        """The time of the next call if no slots are in reserve."""
        self._halved_at = now - MINUTE
        self._refused_from = self._refused_at = now
        """The first and the last of a run of refusals; initially the start time."""

    def reserve_slot(self, now: float) -> float:
        """Take the next slot. Return the seconds until this call may be made."""
        self._recover(now)
        # Slots that no call took are good for one second, which bounds a burst.
        self._free_at = max(self._free_at, now - 1.0) + 1.0 / self.rate
        return max(0.0, self._free_at - now)

    def halve(self, now: float) -> None:
        """Halve the rate, at most once per second, because calls under way are refused together."""
        if now - self._refused_at >= MINUTE:
            self._refused_from = now
        self._refused_at = now
        if now - self._halved_at >= 1.0:
            self.rate = max(self.rate / 2, self._rate_max * SHARE_MIN)
            self._halved_at = now

    @property
    def is_crowded(self) -> bool:
        """True if the rate was halved and has not recovered."""
        return self.rate < self._rate_max

    def crowded_seconds(self, now: float) -> float:
        """Return the duration of the current run of refusals without a quiet minute, or 0 in a quiet minute."""
        return self._refused_at - self._refused_from if self.quiet_seconds(now) < MINUTE else 0.0

    def quiet_seconds(self, now: float) -> float:
        """Return the seconds since the last refusal."""
        return now - self._refused_at

    def _recover(self, now: float) -> None:
        """Double the rate again after each quiet minute."""
        if self.is_crowded and now - self._halved_at >= MINUTE:
            self.rate = min(self._rate_max, self.rate * 2)
            self._halved_at = now


class RequestPacer:
    """A rate of calls per second in total, and one per endpoint."""

    def __init__(self, whole: float, endpoint: float) -> None:
        self.whole = whole
        self.endpoint = endpoint
        self._buckets: dict[str, Bucket] = {}
        """Buckets by endpoint. The empty name has the bucket of all calls."""

    def reserve_slot(self, endpoint: str, now: float) -> float:
        """Take the next slot of an endpoint. Return the seconds until this call may be made."""
        return max(self._reserve_slot("", self.whole, now), self._reserve_slot(endpoint, self.endpoint, now))

    def _reserve_slot(self, name: str, rate: float, now: float) -> float:
        if name not in self._buckets:
            self._buckets[name] = Bucket(rate, now - 1.0)  # The calls of one second may be made at once.
        return self._buckets[name].reserve_slot(now)
