"""The budget of stream resets that the edge sends to an upstream over one HTTP/2 connection.

An upstream may close a connection that carries too many resets. This ends the requests of all clients on it. RFC 9113
section 10.5 allows this, and servers do it since CVE-2023-44487. Known bounds are 100 at once and 10 per second
(edgeproxy), 200 in 30 seconds (Netty), and half of the streams reset within their first second, from 500 streams on
(Envoy).
"""

from typing import Final

RESETS_MAX: Final = 40
"""Resets that the edge may send at once."""

RESETS_PER_SECOND: Final = 5
"""Further resets that the edge may send per second."""

YOUNG_SECONDS: Final = 1.0
"""A stream counts as young for this many seconds after its opening."""

YOUNG_MAX: Final = 100
YOUNG_SHARE: Final = 4
"""The edge may reset YOUNG_MAX young streams of a connection, plus one for each YOUNG_SHARE streams opened on it."""


class ResetBudget:
    """The resets that the edge may still send over one connection. Times are seconds of a monotonic clock."""

    __slots__ = ("_at", "_left", "_opened", "_young")

    def __init__(self, now: float) -> None:
        self._at, self._left = now, float(RESETS_MAX)
        self._opened = self._young = 0
        """The number of opened streams, and the number of streams that were reset while young."""

    def count_opened(self) -> None:
        """Count an opened stream."""
        self._opened += 1

    def spend(self, now: float, opened_at: float) -> bool:
        """Spend the reset of a stream that was opened at `opened_at`. Return False if the budget does not allow it."""
        self._left = min(float(RESETS_MAX), self._left + (now - self._at) * RESETS_PER_SECOND)
        self._at = now
        is_young = now - opened_at < YOUNG_SECONDS
        if self._left < 1 or (is_young and self._young >= YOUNG_MAX + self._opened // YOUNG_SHARE):
            return False
        self._left -= 1
        self._young += is_young
        return True
