"""Meter events of v2, with Stripe's own client: one at a time, and in streams with sessions of their own."""

import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import stripe

from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Sandbox

MINUTE, DAY = 60, 86400


def event(name: str, customer: str, value: str, **fields: str) -> Any:
    """An event of a customer."""
    return {"event_name": name, "payload": {"stripe_customer_id": customer, "value": value}, **fields}


def written(seconds: float) -> str:
    """A time as v2 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def stream(client: stripe.StripeClient, base: str, *events: Any) -> None:
    """Send a stream in a session of its own, as Stripe's guide does."""
    session = await client.v2.billing.meter_event_session.create_async()
    addresses: Any = {"meter_events": base}
    http = stripe.AIOHTTPClient()
    try:
        sender = stripe.StripeClient(session.authentication_token, base_addresses=addresses, http_client=http)
        await sender.v2.billing.meter_event_stream.create_async({"events": list(events)})
    finally:
        await http.close_async()


@pytest.mark.difference(
    "a duplicate in a stream of meter events",
    "counts once, and nothing reports it",
)
def test_events_of_every_kind_are_counted_once(stripe_sandbox: Sandbox) -> None:
    minute = int(time.time()) // MINUTE * MINUTE - 10 * MINUTE

    async def flow(client: stripe.StripeClient) -> str:
        customer = (await client.v1.customers.create_async({"email": "a@example.com"})).id
        meter = await client.v1.billing.meters.create_async(
            {"display_name": "Calls", "event_name": "v2calls", "default_aggregation": {"formula": "sum"}}
        )
        at = written(minute)
        sent = await client.v2.billing.meter_events.create_async(
            event("v2calls", customer, "1", identifier="v2-one", timestamp=at)
        )
        assert (sent.identifier, sent.timestamp) == ("v2-one", at.replace("+00:00", ".000Z"))
        with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier v2-one"):
            await client.v1.billing.meter_events.create_async(event("v2calls", customer, "1", identifier="v2-one"))
        many = [event("v2calls", customer, "10", identifier=f"v2-{n}", timestamp=at) for n in range(98)]
        again = event("v2calls", customer, "1", identifier="v2-one", timestamp=at)
        late = event("v2calls", customer, "1", identifier="v2-late", timestamp=written(time.time() - 36 * DAY))
        await stream(client, stripe_sandbox.url, *many, again, late)
        cancelled = await client.v2.billing.meter_event_adjustments.create_async(
            {"event_name": "v2calls", "type": "cancel", "cancel": {"identifier": "v2-0"}}
        )
        assert cancelled.cancel.identifier == "v2-0"
        for bad in ([], [again] * 101, [event("v2calls", customer, "1", timestamp="soon")]):
            with pytest.raises(stripe.InvalidRequestError):
                await stream(client, stripe_sandbox.url, *bad)
        sums: list[float] = []
        deadline = time.monotonic() + 60
        while sums != [971] and time.monotonic() < deadline:
            listed = await client.v1.billing.meters.event_summaries.list_async(
                meter.id, {"customer": customer, "start_time": minute, "end_time": minute + MINUTE}
            )
            sums = [one.aggregated_value for one in listed.data]
        assert sums == [971]
        return customer

    stripe_sandbox.run(flow)

    def refused() -> dict[str, str]:
        entries = stripe_sandbox.journal("billing.meter_event.refused")
        return {entry["id"]: entry["error"] for entry in entries if entry["id"].startswith("v2-")}

    expected = {"v2-one": "duplicate", "v2-late": "timestamp_too_far_in_past"}
    until(lambda: refused() == expected, "the error of a stream is reported later")


def test_a_stream_needs_the_token_of_a_session_that_has_not_expired(own_sandbox: Sandbox) -> None:
    session = own_sandbox.call("POST", "/v2/billing/meter_event_session", "{}").json()
    body = orjson.dumps({"events": [event("calls", "cus_none", "1")]}).decode()
    token = session["authentication_token"]

    def send(token: str) -> Any:
        answer = own_sandbox.call("POST", "/v2/billing/meter_event_stream", body, Authorization=f"Bearer {token}")
        return answer.status, answer.json().get("error", {}).get("code")

    assert send(token) == (200, None)
    assert own_sandbox.call("GET", "/v1/customers", Authorization=f"Bearer {token}").status == 401
    wrong = (token[:-1] + ("0" if token[-1] != "0" else "1"), session["id"], f"{session['id']}.", own_sandbox.key, "")
    assert [send(each) for each in wrong] == [(401, None)] * len(wrong)
    own_sandbox.advance(15 * MINUTE)
    assert send(token) == (401, "billing_meter_event_session_expired")
    assert len(own_sandbox.journal("billing.meter_event.accepted")) == 1
