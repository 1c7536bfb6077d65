"""Passive ejection: an endpoint whose requests keep failing is left out for a while, then tried again.

What counts is what this worker sees of its own requests: faults, and statuses of 500 and above, in a row. Nothing
is asked of anybody, so it works at once, and for services that nobody probes.

Where all that are up are left out they are asked all the same, and the first that answers well is back at once.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class Ejectable(Protocol):
    """What is known of an endpoint: whether it is up, left out (`out`) and since when, and its errors in a row."""

    up: bool
    out: bool
    out_since: float
    errors: int


EndpointT = TypeVar("EndpointT", bound=Ejectable)


class OutlierDetector(Generic[EndpointT]):
    """The endpoints of one service that are left out. Times are seconds of the monotonic clock."""

    __slots__ = ("_errors", "_out", "_seconds")

    def __init__(self, errors: int, seconds: float) -> None:
        """Leave out for `seconds` whoever has had so many `errors` in a row."""
        self._errors = errors
        self._seconds = seconds
        self._out: list[tuple[float, EndpointT]] = []
        """Who is out, and until when; the first to come back stands first, for all stay out equally long."""

    def failed(self, endpoint: EndpointT, now: float, endpoints: Sequence[EndpointT]) -> bool:
        """A request to it failed. True where it is left out from now on; never the only one of `endpoints` that is up.

        What fails while it is out was sent before, or nobody else is there to be asked; neither is news.
        """
        if endpoint.out:
            return False
        endpoint.errors += 1
        if endpoint.errors < self._errors or not any(each.up and each is not endpoint for each in endpoints):
            return False
        self.leave_out(endpoint, now)
        return True

    def leave_out(self, endpoint: EndpointT, now: float) -> None:
        """Leave it out from now on. Once back, one more error is enough: it has shown nothing yet."""
        endpoint.errors = self._errors - 1
        endpoint.out, endpoint.out_since = True, now
        self._out.append((now + self._seconds, endpoint))

    def back(self, now: float) -> list[EndpointT]:
        """Let those in again whose time is over; returns them."""
        due = [endpoint for until, endpoint in self._out if until <= now]
        for endpoint in due:
            endpoint.out = False
        del self._out[: len(due)]
        return due

    def pardon(self, endpoint: EndpointT) -> None:
        """Somebody who asked it knows that it is well again: it need not wait, and begins anew."""
        self._out = [each for each in self._out if each[1] is not endpoint]
        endpoint.out, endpoint.errors = False, 0
