"""The limit on requests that are recorded because their senders ask for it. Pure: time is an argument."""

from edgeproxy.config.units import Rate


class ParentBudget:
    """A token bucket, so that a sender cannot make every request expensive by marking it as sampled."""

    __slots__ = ("_at", "_left", "_most", "_per_second")

    def __init__(self, rate: Rate) -> None:
        self._most = float(rate.count)
        self._per_second = rate.count / rate.seconds
        self._left = self._most
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one token, at `now` of the monotonic clock; False if none is left."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
