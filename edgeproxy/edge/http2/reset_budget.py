"""The resets that a service is sent over one connection: services end connections with many, and everybody's calls.

RFC 9113 section 10.5 lets them, since CVE-2023-44487. Known bounds are 100 and 10 a second (edgeproxy), 200 in 30
seconds (Netty), and half of 500 streams or more that are reset within their first second (Envoy).
"""

from typing import Final

RESETS_MAX: Final = 40
"""Resets that may be sent at once."""

RESETS_PER_SECOND: Final = 5
"""Resets that may be sent beyond these."""

YOUNG_SECONDS: Final = 1.0
"""Seconds for which a stream counts as young."""

YOUNG_MAX: Final = 100
YOUNG_SHARE: Final = 4
"""Young streams that may be reset whatever else happens on a connection, and beside them one of so many streams."""


class ResetBudget:
    """What is left to one connection. Times are seconds of a monotonic clock."""

    __slots__ = ("_at", "_left", "_opened", "_young")

    def __init__(self, now: float) -> None:
        self._at, self._left = now, float(RESETS_MAX)
        self._opened = self._young = 0
        """Streams that were opened, and those that were reset while they were young."""

    def count_opened(self) -> None:
        """Count a stream that is opened."""
        self._opened += 1

    def spend(self, now: float, opened_at: float) -> bool:
        """Take what a reset costs of a stream that was opened then; return False where there is not so much."""
        self._left = min(float(RESETS_MAX), self._left + (now - self._at) * RESETS_PER_SECOND)
        self._at = now
        is_young = now - opened_at < YOUNG_SECONDS
        if self._left < 1 or (is_young and self._young >= YOUNG_MAX + self._opened // YOUNG_SHARE):
            return False
        self._left -= 1
        self._young += is_young
        return True
