"""Webhook events of Stripe: their signature, and the object that they are about."""

from typing import Any

import orjson
import pytest
from stripe import WebhookSignature

from edgeproxy.collector.billing.stripe.webhook_event import (
    REPORT,
    ForgedEventError,
    InvalidStripeEventError,
    StripeEvent,
    parse_event,
    parse_event_object,
    verify_signature,
)

NOW = 1_800_000_000
SECRETS = ("whsec_new", "whsec_old")
SNAPSHOT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.paid",
    "created": NOW,
    "livemode": False,
    "data": {"object": {"id": "in_1", "object": "invoice"}},
}
THIN: dict[str, Any] = {
    "id": "evt_test_1",
    "object": "v2.core.event",
    "type": "v1.billing.meter.error_report_triggered",
    "created": "2027-01-15T08:00:00.000Z",
    "livemode": False,
    "related_object": {"id": "mtr_1", "type": "billing.meter"},
}
BODY = orjson.dumps(SNAPSHOT)


def about(type_: str, **data: Any) -> tuple[bool, str, str]:
    """Return whether an event about a part of a customer is applied, and its object."""
    event = parse_event_object(SNAPSHOT | {"type": type_, "data": data})
    return event.is_applied, event.object_type, event.object


def test_tax_id_and_payment_method_events_concern_their_customer() -> None:
    number = {"id": "txi_1", "object": "tax_id", "customer": "cus_1"}
    assert about("customer.tax_id.deleted", object=number) == (True, "customer", "cus_1")
    card = {"id": "pm_1", "object": "payment_method", "customer": None}
    detached = {"object": card, "previous_attributes": {"customer": "cus_2"}}
    assert about("payment_method.detached", **detached) == (True, "customer", "cus_2")
    assert about("payment_method.updated", object=card) == (True, "payment_method", "pm_1"), (
        "the detached card belongs to no customer"
    )


def signed(body: bytes = BODY, secret: str = "whsec_new", at: int = NOW) -> str:
    """As Stripe's own package signs."""
    return WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=at)


@pytest.mark.parametrize(("secret", "at"), [("whsec_new", NOW), ("whsec_old", NOW - 300), ("whsec_new", NOW + 300)])
def test_webhook_signature_is_valid_with_any_current_secret(secret: str, at: int) -> None:
    verify_signature(BODY, signed(secret=secret, at=at), SECRETS, NOW)


def test_webhook_with_one_valid_signature_is_accepted() -> None:
    time, _, good = signed().partition(",")
    verify_signature(BODY, f"{time},v1={'0' * 64},v0=abc,{good}", SECRETS, NOW)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (None, "no Stripe-Signature"),
        ("", "no Stripe-Signature"),
        ("t=1," + "v1=a" * 1000, "no Stripe-Signature"),
        ("v1=abc", "no time"),
        (f"t={NOW}", "no signature"),
        (f"t={NOW},v0=abc", "no signature"),
        (f"t=soon,{signed().partition(',')[2]}", "no time"),
        (f"t={NOW},t={NOW},{signed().partition(',')[2]}", "no time"),
        (signed(secret="whsec_other"), "no signature is by a secret"),
        (signed(BODY + b" "), "no signature is by a secret"),
        (f"t={NOW + 1},{signed().partition(',')[2]}", "no signature is by a secret"),
        (f"t={NOW},v1=é", "no signature is by a secret"),
        (f"t={NOW},v1=\udcff", "no signature is by a secret"),  # A byte that is not UTF-8, as aiohttp has it.
        (signed(at=NOW - 301), "300 s away"),
        (signed(at=NOW + 301), "300 s away"),
    ],
)
def test_forged_old_or_future_webhook_is_refused(header: str | None, why: str) -> None:
    with pytest.raises(ForgedEventError, match=why):
        verify_signature(BODY, header, SECRETS, NOW)


def test_without_a_secret_no_event_is_accepted() -> None:
    with pytest.raises(ForgedEventError):
        verify_signature(BODY, signed(secret=""), (), NOW)


def test_a_snapshot_and_a_thin_event() -> None:
    assert parse_event(BODY) == StripeEvent("evt_1", "invoice.paid", "invoice", "in_1", False, NOW)
    assert parse_event(orjson.dumps(THIN)) == StripeEvent("evt_test_1", THIN["type"], REPORT, "evt_test_1", False, NOW)
    other = THIN | {"type": "v2.core.account.created", "related_object": {"id": "acct_1", "type": "v2.core.account"}}
    assert parse_event_object(other)[2:4] == ("v2.core.account", "acct_1")


def test_an_object_without_an_id_is_an_event_all_the_same() -> None:
    body = SNAPSHOT | {"type": "invoice.upcoming", "data": {"object": {"object": "invoice"}}}
    assert parse_event_object(body).object == ""


@pytest.mark.parametrize(
    ("type_", "is_taken"),
    [
        ("invoice.paid", True),
        ("customer.subscription.updated", True),
        ("customer.updated", True),
        ("customer.created", False),
        ("invoiceitem.created", False),
        ("v1.billing.meter.no_meter_found", True),
        ("payout.paid", False),
    ],
)
def test_only_known_event_types_are_applied(type_: str, is_taken: bool) -> None:
    assert parse_event_object(SNAPSHOT | {"type": type_}).is_applied is is_taken


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (orjson.dumps({}), "no id"),
        (orjson.dumps(SNAPSHOT | {"id": "a b"}), "no id"),
        (orjson.dumps(SNAPSHOT | {"type": 5}), "no id, or no type"),
        (orjson.dumps(SNAPSHOT | {"data": []}), "about no object"),
        (orjson.dumps(SNAPSHOT | {"data": {"object": "in_1"}}), "about no object"),
        (orjson.dumps(SNAPSHOT | {"data": {"object": {"id": "in_1"}}}), "no type"),
        (orjson.dumps(SNAPSHOT | {"data": {"object": {"object": "invoice", "id": "a/b"}}}), "no id"),
        (orjson.dumps(THIN | {"type": "v2.core.x", "related_object": None}), "about no object"),
        (orjson.dumps(SNAPSHOT | {"livemode": 1}), "whether it is live"),
        (orjson.dumps(SNAPSHOT | {"created": "soon"}), "when it was made"),
        (orjson.dumps(SNAPSHOT | {"created": -1}), "when it was made"),
        (orjson.dumps(SNAPSHOT | {"created": 1 << 39}), "when it was made"),
        (orjson.dumps(THIN | {"created": "9999-12-31T23:59:59-14:00"}), "when it was made"),
        (orjson.dumps(THIN | {"created": "0001-01-01T00:00:00Z"}), "when it was made"),
    ],
)
def test_invalid_stripe_event_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidStripeEventError, match=why):
        parse_event(body)
