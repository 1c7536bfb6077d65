"""Passive ejection: an endpoint whose requests keep failing is left out for a while, then tried again.

This worker counts its own failed requests in a row: faults, and statuses of 500 and above. It needs no messages or
probes, so it works at once for every service.

If all endpoints that are up are ejected, they still get requests, and the first that answers well is readmitted at
once.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from edgeproxy.edge.proxy.upstreams.endpoint_states import CHOSEN, EJECTED, UP, EndpointEvent, EndpointState


class Ejectable(Protocol):
    """The interface of an endpoint to the detector. Times are monotonic seconds."""

    errors: int
    """Failed requests in a row."""
    ejected_at: float
    """The time of its last ejection."""
    ejected_until: float
    """The end of its last ejection."""

    @property
    def state(self) -> EndpointState:
        """The state of the endpoint in the choice."""

    def apply(self, event: EndpointEvent) -> bool:
        """Go to the state that follows this event. Return whether the state changed."""


EndpointT = TypeVar("EndpointT", bound=Ejectable)


class OutlierDetector:
    """A service's rule for ejections: for `seconds` after `errors` errors in a row.

    `ejects_last`: even the only endpoint that is up, because a fallback may serve instead.
    """

    __slots__ = ("_ejects_last", "_errors", "_seconds")

    def __init__(self, errors: int, seconds: float, *, ejects_last: bool = False) -> None:
        self._errors = errors
        self._seconds = seconds
        self._ejects_last = ejects_last

    def record_failure(self, endpoint: Ejectable, now: float, endpoints: Sequence[Ejectable]) -> bool:
        """Count a failed request. Return whether it ejects the endpoint; as a rule never the only one of `endpoints`
        that is up.

        A failure of an ejected endpoint is ignored: its request was sent before the ejection, or no other endpoint is
        left.
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
        """Eject an endpoint from now on. Once it is back, one more error ejects it again."""
        endpoint.errors = self._errors - 1
        endpoint.ejected_at, endpoint.ejected_until = now, now + self._seconds
        endpoint.apply(event)


def end_ejections(endpoints: Iterable[EndpointT], now: float) -> list[EndpointT]:
    """Readmit the endpoints whose ejection is over. Return them."""
    due = [endpoint for endpoint in endpoints if endpoint.state is EJECTED and endpoint.ejected_until <= now]
    for endpoint in due:
        endpoint.apply(EndpointEvent.EJECTION_EXPIRED)
    return due
