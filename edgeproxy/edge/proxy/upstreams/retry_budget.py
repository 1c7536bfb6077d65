"""The retry budget: a share of an upstream's requests, so that an upstream in trouble does not get twice as many."""

from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
"""A retry is charged for these seconds."""

RETRIES_ALWAYS = 30
"""Retries within the window that are always allowed: 3 a second, so that a quiet service has some too."""


class RetryBudget:
    """The retries of one service in one worker. Times are monotonic seconds."""

    __slots__ = ("_answers", "_marks", "_retries", "_share")

    def __init__(self, share: float, answers: Callable[[], int]) -> None:
        """`answers` returns the number of requests answered so far. Retries may be `share` of its growth.

        The number is read at every sweep and before a retry, so that other requests pay nothing for it.
        """
        self._share = share
        self._answers = answers
        self._retries = 0
        self._marks = deque([(float("-inf"), answers(), 0)])
        """(time, answers, retries) then; the first is the newest that is older than the window."""

    def sweep(self, now: float) -> None:
        """Record the numbers of answers and retries by now; called twice a second."""
        marks = self._marks
        marks.append((now, self._answers(), self._retries))
        while marks[1][0] <= now - WINDOW_SECONDS:
            marks.popleft()

    def spend(self) -> bool:
        """Return whether one more retry is allowed, and charge it. A share of 0 allows none."""
        _, answers, retries = self._marks[0]
        allowed = max(RETRIES_ALWAYS, self._share * (self._answers() - answers)) if self._share else 0
        if self._retries - retries + 1 > allowed:
            return False
        self._retries += 1
        return True
