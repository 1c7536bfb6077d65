"""The pace of a supervisor's reports: how much of a core they take, and how many are under way at once. Pure.

A token bucket of CPU time: the supervisor has other things to do, and answers those who ask how it is. And a window of
reports that are under way, as TCP has one: it grows by each answer that comes in good time, and halves when one is
late, so that a thousand hosts which find their hub again do not bury it. Times are monotonic seconds.
"""

CPU_SHARE = 0.5
"""The part of a core that reports and their answers may take."""
CPU_SAVED_SECONDS_MAX = 0.005
"""Seconds of CPU time that may be saved up."""
REPORTS_PER_ROUND_MAX = 100
"""Reports in one round; what they took is known afterwards."""
UNDER_WAY_MIN, UNDER_WAY_MAX = 16, 2000
"""Reports that may be under way: at first and at least, and at most."""
LATE_SECONDS = 0.25
"""Seconds beyond the quickest answer after which one is late."""


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
        """Take off CPU time that was spent, seconds."""
        self._credit -= seconds

    def record_answer(self, now: float, took: float, quickest: float) -> None:
        """Record an answer that came after `took` seconds; the quickest of the last minute took `quickest`."""
        if took <= quickest + LATE_SECONDS:
            self.window = min(UNDER_WAY_MAX, self.window + 1)
        elif now - self._halved_at > took:
            # Once for all that were under way together.
            self._halved_at = now
            self.window = max(UNDER_WAY_MIN, self.window // 2)

    def reset(self) -> None:
        """Begin anew after the hub was away, as what it can take now is not known."""
        self.window = UNDER_WAY_MIN
