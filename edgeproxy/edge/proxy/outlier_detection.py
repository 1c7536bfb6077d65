"""Passive ejection: an endpoint whose requests keep failing is left out for a while, then tried again.

What counts is what this worker sees of its own requests: faults, and statuses of 500 and above, in a row. Nothing
is asked of anybody, so it works at once, and for services that nobody probes.

Where all that are up are left out they are asked all the same, and the first that answers well is back at once.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from edgeproxy.edge.proxy.endpoint_states import CHOSEN, EJECTED, UP, EndpointEvent, EndpointState


class Ejectable(Protocol):
    """An endpoint as the detector needs it. Times are seconds of the monotonic clock."""

    errors: int
    """Requests in a row that failed."""
    ejected_at: float
    """The time of its last ejection."""
    ejected_until: float
    """The end of its last ejection."""

    @property
    def state(self) -> EndpointState:
        """The state of the endpoint in the choice."""

    def apply(self, event: EndpointEvent) -> bool:
        """Go on to the state that follows on this event; True where that is another one."""


EndpointT = TypeVar("EndpointT", bound=Ejectable)


class OutlierDetector:
    """The rule of a service by which endpoints are ejected: for `seconds` after so many `errors` in a row.

    `ejects_last`: also the only one that is up, as a fallback may be asked instead.
    """

    __slots__ = ("_ejects_last", "_errors", "_seconds")

    def __init__(self, errors: int, seconds: float, *, ejects_last: bool = False) -> None:
        self._errors = errors
        self._seconds = seconds
        self._ejects_last = ejects_last

    def record_failure(self, endpoint: Ejectable, now: float, endpoints: Sequence[Ejectable]) -> bool:
        """Count a request that failed. True where it ejects the endpoint; as a rule never the only one of `endpoints`
        that is up.

        What fails while it is out was sent before, or nobody else is there to be asked; neither is news.
        """
        if endpoint.state not in CHOSEN:
            return False
        endpoint.errors += 1
        if endpoint.errors < self._errors:
            return False
        if not (self._ejects_last or any(each.state in UP and each is not endpoint for each in endpoints)):
            return False
        self.eject(endpoint, now, EndpointEvent.ERRORS_EXCEEDED)
        return True

    def eject(self, endpoint: Ejectable, now: float, event: EndpointEvent) -> None:
        """Eject an endpoint from now on. Once back, one more error is enough: it has shown nothing yet."""
        endpoint.errors = self._errors - 1
        endpoint.ejected_at, endpoint.ejected_until = now, now + self._seconds
        endpoint.apply(event)


def end_ejections(endpoints: Iterable[EndpointT], now: float) -> list[EndpointT]:
    """Let those endpoints in again whose ejection is over; returns them."""
    due = [each for each in endpoints if each.state is EJECTED and each.ejected_until <= now]
    for endpoint in due:
        endpoint.apply(EndpointEvent.EJECTION_EXPIRED)
    return due
