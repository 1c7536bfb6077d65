"""Test clocks: time that advances on demand, for the customers that are on them."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id

DAY = 86400
LIVES_SECONDS = 30 * DAY
AHEAD_SECONDS = 2 * 366 * DAY
"""Seconds that a clock may advance at once: two of the longest periods."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a clock that stands still."""
    if tx.live:
        raise invalid_request("Test clocks are there in test mode alone.")
    if "customer" in params:
        raise invalid_request("Customers get a clock when they are made.", "customer")
    clock: Body = {
        "id": generate_id("clock"),
        "object": "test_helpers.test_clock",
        "created": tx.now,
        "deletes_after": tx.now + LIVES_SECONDS,
        "frozen_time": params["frozen_time"],
        "livemode": False,
        "name": params.get("name"),
        "status": "ready",
        "status_details": {},
    }
    tx.insert(clock)
    tx.record_event("test_helpers.test_clock.created", clock)
    return clock


def advance(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Advance a clock: its timers run in their order, after the response."""
    clock = tx.get("test_helpers.test_clock", ids["id"])
    if clock["status"] != "ready":
        raise ApiError(429, "Test clock advancement is underway.", kind="invalid_request_error")
    target = params["frozen_time"]
    if target <= clock["frozen_time"]:
        raise invalid_request("A test clock can only be advanced to a time after its frozen_time.", "frozen_time")
    if target > clock["frozen_time"] + AHEAD_SECONDS:
        raise invalid_request("A test clock cannot be advanced so far at once.", "frozen_time")
    clock.update(status="advancing", status_details={"advancing": {"target_frozen_time": target}})
    tx.save(clock)
    tx.record_event("test_helpers.test_clock.advancing", clock)
    return clock


def finish_advance(tx: Transaction, clock: Body) -> None:
    """Set a clock to the time that it was advanced to."""
    target = clock["status_details"]["advancing"]["target_frozen_time"]
    clock.update(status="ready", status_details={}, frozen_time=target)
    tx.save(clock)
    tx.record_event("test_helpers.test_clock.ready", clock)


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a clock with its customers and their objects."""
    clock = tx.get("test_helpers.test_clock", ids["id"])
    tx.account.connection.execute("DELETE FROM timers WHERE clock = ?", (clock["id"],))
    for kind in ("subscription_schedule", "subscription", "invoice", "invoiceitem", "customer"):
        for body in tx.all(kind, test_clock=clock["id"]):
            tx.delete(body)
    tx.record_event("test_helpers.test_clock.deleted", clock)
    return tx.delete(clock)
