"""The pace of a supervisor's reports: their share of a core, and the number of reports without an answer. Pure.

A token bucket of CPU time leaves time for the supervisor's other work, for example its admin listener. A window bounds
the reports in flight as in TCP: it grows with each timely answer, and halves when one is late, so that a thousand hosts
that find their hub again do not overload it. Times are monotonic seconds.
"""

CPU_SHARE = 0.5
"""The part of a core that reports and their answers may take."""
CPU_SAVED_SECONDS_MAX = 0.005
"""Seconds of CPU time that may be saved up."""
REPORTS_PER_ROUND_MAX = 100
"""Reports in one round; their cost is known only afterwards."""
UNDER_WAY_MIN, UNDER_WAY_MAX = 16, 2000
"""Reports that may be in flight: at first and at least, and at most."""
LATE_SECONDS = 0.25
"""An answer is late if it takes these seconds longer than the quickest one."""


class Pace:
    """The pace of one supervisor."""

    __slots__ = ("_at", "_credit", "_halved_at", "window")

    def __init__(self, now: float) -> None:
        self._credit = CPU_SAVED_SECONDS_MAX
        self._at = self._halved_at = now
        self.window = UNDER_WAY_MIN

    def compute_pause_seconds(self, now: float) -> float:
        """Return the seconds until there is CPU time for a report again; 0: now."""
        self._credit = min(CPU_SAVED_SECONDS_MAX, self._credit + CPU_SHARE * (now - self._at))
        self._at = now
        return max(0.0, -self._credit / CPU_SHARE)

    def charge(self, seconds: float) -> None:
        """Subtract spent CPU time, in seconds."""
        self._credit -= seconds

    def record_answer(self, now: float, took: float, quickest: float) -> None:
        """Record an answer that came after `took` seconds; the quickest of the last minute took `quickest`."""
        if took <= quickest + LATE_SECONDS:
            self.window = min(UNDER_WAY_MAX, self.window + 1)
        elif now - self._halved_at > took:
            # Once for all reports that were in flight together.
            self._halved_at = now
            self.window = max(UNDER_WAY_MIN, self.window // 2)

    def reset(self) -> None:
        """Start again after the hub was away, because its capacity is not known."""
        self.window = UNDER_WAY_MIN
