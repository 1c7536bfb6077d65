"""The transitions in the table of an endpoint's states, and the forbidden ones."""

import pytest

from edgeproxy.edge.proxy.upstreams.endpoint_states import (
    CHOSEN,
    DOWN,
    DRAINING,
    EJECTED,
    HEALTHY,
    PROBING,
    TRANSITIONS,
    UP,
    EndpointEvent,
    EndpointState,
    advance,
)


def test_every_state_is_reached_from_the_first() -> None:
    reached = {HEALTHY}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(EndpointState) == set(TRANSITIONS)


@pytest.mark.parametrize("event", EndpointEvent)
def test_removed_endpoint_stays_draining_after_any_event(event: EndpointEvent) -> None:
    for state in EndpointState:
        assert advance(advance(state, EndpointEvent.ADDRESS_REMOVED), event) is DRAINING


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (DOWN, {EndpointEvent.CHECK_PASSED}),
        (EJECTED, {EndpointEvent.CHECK_PASSED, EndpointEvent.SUCCEEDED, EndpointEvent.EJECTION_EXPIRED}),
    ],
)
def test_only_listed_events_bring_an_endpoint_back(state: EndpointState, events: set[EndpointEvent]) -> None:
    assert {event for event in EndpointEvent if advance(state, event) in CHOSEN} == events


def test_an_event_that_a_state_has_no_row_for_changes_nothing() -> None:
    assert advance(DOWN, EndpointEvent.ERRORS_EXCEEDED) is DOWN
    assert advance(HEALTHY, EndpointEvent.EJECTION_EXPIRED) is HEALTHY


def test_failed_health_check_takes_down_each_up_state() -> None:
    assert {state for state in EndpointState if advance(state, EndpointEvent.CHECK_FAILED) is DOWN} == {*UP, DOWN}
    assert advance(PROBING, EndpointEvent.ERRORS_EXCEEDED) is EJECTED
