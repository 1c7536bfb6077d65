"""How fast somebody else's API may be asked: so much in a second in all, and so much of each endpoint. Pure."""

BURST_SECONDS = 1.0
"""Seconds of rest that may be made up for at once."""


class Pace:
    """When the next call may go. `now` is any clock of seconds; rates are calls a second."""

    def __init__(self, whole: float, endpoint: float) -> None:
        self.whole = whole
        self.endpoint = endpoint
        self._free: dict[str, float] = {}
        """When what was allowed so far is used up, by endpoint; under an empty name, in all."""

    def wait(self, endpoint: str, now: float) -> float:
        """Seconds until a call of an endpoint may go, which takes its place."""
        return max(self._take("", self.whole, now), self._take(endpoint, self.endpoint, now))

    def _take(self, name: str, rate: float, now: float) -> float:
        free = max(self._free.get(name, 0.0), now - BURST_SECONDS)
        self._free[name] = free + 1 / rate
        return max(0.0, free - now)
