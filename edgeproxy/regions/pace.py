"""Rate limits of reports, for each network and for all together: token buckets, bounded in number."""

from collections import OrderedDict

PER_NETWORK_SECOND, NETWORK_DEPTH = 0.5, 30.0
"""Reports a second of one network, and how many at once after a while."""
PER_SECOND, DEPTH = 200.0, 400.0
"""Reports a second of all networks together, and how many at once after a while."""
NETWORKS_MAX = 20_000
"""Networks with a bucket; the one without a report for longest is removed first."""


class Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_depth", "_left", "_rate")

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self._rate, self._depth = rate, depth
        self._left, self._at = depth, now

    def refill(self, now: float) -> bool:
        """Refill the bucket until `now`, and return whether it has a token."""
        self._left = min(self._depth, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left >= 1

    def spend(self) -> None:
        """Take a token."""
        self._left -= 1


class Pace:
    """The rate limits of all networks."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(PER_SECOND, DEPTH, now)
        self._networks: OrderedDict[str, Bucket] = OrderedDict()

    def admits(self, network: str, now: float) -> bool:
        """Return whether this network may report at `now`, a time that never runs backwards; if so, it is counted."""
        bucket = self._networks.get(network)
        if bucket is None:
            bucket = self._networks[network] = Bucket(PER_NETWORK_SECOND, NETWORK_DEPTH, now)
            if len(self._networks) > NETWORKS_MAX:
                self._networks.popitem(last=False)
        else:
            self._networks.move_to_end(network)
        if not (bucket.refill(now) and self._all.refill(now)):
            return False
        bucket.spend()
        self._all.spend()
        return True

    def __len__(self) -> int:
        return len(self._networks)
