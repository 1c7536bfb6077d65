"""The states of an endpoint: their meanings, and the events that lead from one to another.

`TRANSITIONS` has every transition, and only `advance` changes a state. Two observers report events: the supervisor,
which checks health actively and resolves names, and this worker, which sees the results of its own requests
(outlier_detection.py). An event without a row for the state changes nothing: a request's result says nothing new about
an endpoint that is down or gone.
"""

from enum import Enum, auto
from typing import Final


class EndpointState(Enum):
    """The states of an endpoint in the choice of a service."""

    HEALTHY = auto()
    """The endpoint can be chosen."""
    PROBING = auto()
    """The endpoint can be chosen again after an ejection; one more error ejects it."""
    EJECTED = auto()
    """The endpoint is left out, unless none is HEALTHY or PROBING: any answer may be better than none."""
    DOWN = auto()
    """The supervisor reports that it does not answer: it is never chosen."""
    DRAINING = auto()
    """The service no longer has the address: requests in flight finish, and no new ones start."""


HEALTHY, PROBING, EJECTED, DOWN, DRAINING = EndpointState


class EndpointEvent(Enum):
    """The events that lead an endpoint from one state to another."""

    CHECK_FAILED = auto()
    """The supervisor's health check fails."""
    CHECK_PASSED = auto()
    """The supervisor's health check passes."""
    ERRORS_EXCEEDED = auto()
    """Enough requests in a row failed to eject the endpoint."""
    SUCCEEDED = auto()
    """A request that was sent in its present state has ended well."""
    EJECTION_EXPIRED = auto()
    """The time of its ejection is over."""
    CHECKS_ENDED = auto()
    """The supervisor is gone, and its last report is old."""
    ADDRESS_REMOVED = auto()
    """The name of the endpoint no longer resolves to this address."""


TRANSITIONS: Final[dict[EndpointState, dict[EndpointEvent, EndpointState]]] = {
    HEALTHY: {
        EndpointEvent.ERRORS_EXCEEDED: EJECTED,
        EndpointEvent.CHECK_FAILED: DOWN,
        EndpointEvent.ADDRESS_REMOVED: DRAINING,
    },
    PROBING: {
        EndpointEvent.SUCCEEDED: HEALTHY,
        EndpointEvent.ERRORS_EXCEEDED: EJECTED,
        EndpointEvent.CHECK_FAILED: DOWN,
        EndpointEvent.ADDRESS_REMOVED: DRAINING,
    },
    EJECTED: {
        EndpointEvent.SUCCEEDED: HEALTHY,
        EndpointEvent.EJECTION_EXPIRED: PROBING,
        EndpointEvent.CHECK_FAILED: DOWN,
        EndpointEvent.CHECK_PASSED: HEALTHY,
        EndpointEvent.ADDRESS_REMOVED: DRAINING,
    },
    DOWN: {
        EndpointEvent.CHECK_PASSED: HEALTHY,
        EndpointEvent.CHECKS_ENDED: EJECTED,
        EndpointEvent.ADDRESS_REMOVED: DRAINING,
    },
    DRAINING: {},
}
"""The state that follows each state, by event."""

CHOSEN: Final = frozenset((HEALTHY, PROBING))
"""States of endpoints that can be chosen."""

UP: Final = frozenset((HEALTHY, PROBING, EJECTED))
"""States of endpoints that may get requests at all."""


def advance(state: EndpointState, event: EndpointEvent) -> EndpointState:
    """Return the state that follows `state` on this event; `state` itself if the event does not apply."""
    return TRANSITIONS[state].get(event, state)
