"""The retry budget: a share of an upstream's requests, so that an upstream in trouble is not asked twice as often."""

from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
"""Seconds for which a retry is charged."""

RETRIES_ALWAYS = 30
"""Retries within the window that no share forbids: 3 a second, so that a quiet service has some too."""


class RetryBudget:
    """The retries of one service in one worker. Times are seconds of the monotonic clock."""

    __slots__ = ("_answers", "_marks", "_retries", "_share")

    def __init__(self, share: float, answers: Callable[[], int]) -> None:
        """`share` of what `answers` grows by may be retries: the number of requests answered so far.

        That number is read rather than counted here, at every sweep and where something is to be retried: requests
        that are not pay nothing.
        """
        self._share = share
        self._answers = answers
        self._retries = 0
        self._marks = deque([(float("-inf"), answers(), 0)])
        """(when, answers, retries) then; the first is the newest that is older than the window."""

    def sweep(self, now: float) -> None:
        """Mark how many answers and retries there were by now; called twice a second."""
        marks = self._marks
        marks.append((now, self._answers(), self._retries))
        while marks[1][0] <= now - WINDOW_SECONDS:
            marks.popleft()

    def spend(self) -> bool:
        """Return whether one more retry may be, which is then charged. With a share of none there is none."""
        _, answers, retries = self._marks[0]
        allowed = max(RETRIES_ALWAYS, self._share * (self._answers() - answers)) if self._share else 0
        if self._retries - retries + 1 > allowed:
            return False
        self._retries += 1
        return True
