"""Events of Stripe's webhooks: verification of signatures, and parsing. Pure.

An event reports that something has changed. Its object is fetched from Stripe when the event is applied, so only the
object's type and id are read.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import orjson

BYTES_MAX = 256 << 10
"""The largest event in bytes."""
AGE_SECONDS_MAX = 300.0
"""A signature may be at most this many seconds old, or ahead of our clock."""
SIGNATURE_CHARACTERS_MAX = 1000
CREATED_MAX = 1 << 36
"""The latest valid creation time of an event, a Unix second in the year 4147, so that all lists can show it."""
ID = re.compile(r"[A-Za-z0-9_]{3,255}")
TYPE = re.compile(r"[A-Za-z0-9_.]{1,255}")

APPLIED_TYPES: Sequence[str] = (
    "invoice.",
    "credit_note.",
    "customer.subscription.",
    "charge.",
    "refund.",
    "checkout.session.",
    "customer.updated",
    "customer.deleted",
    "customer.tax_id.",
    "payment_method.",
    "v1.billing.meter.error_report_triggered",
    "v1.billing.meter.no_meter_found",
)
"""The types that are applied: a name, or a prefix that ends with a point."""
PARTS_OF_CUSTOMERS = frozenset({"tax_id", "payment_method"})
"""Types of objects whose events are applied to their customer."""
REPORT = "billing.meter_error_report"
"""The object type of a report on meter events. The report is the event itself."""
REPORTS = frozenset({"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"})


class ForgedEventError(Exception):
    """The event is not signed with a known secret, or not recently. The message may be sent to the caller."""


class InvalidStripeEventError(Exception):
    """The body is not an event. The message may be sent to the caller."""


class StripeEvent(NamedTuple):
    """An event: a change of an object."""

    id: str
    type: str
    object_type: str
    object: str
    """The id of the changed object."""
    livemode: bool
    created: int
    """Unix seconds by Stripe's clock."""

    @property
    def is_applied(self) -> bool:
        """True if events of its type are applied."""
        return any(self.type == name or (name.endswith(".") and self.type.startswith(name)) for name in APPLIED_TYPES)


def verify_signature(payload: bytes, header: str | None, secrets: Sequence[str], now: float) -> None:
    """Raise ForgedEventError unless one of the secrets signed these bytes recently.

    The header is `t=SECONDS,v1=HEX[,v1=HEX]`: HMAC-SHA256 over `SECONDS.` and the bytes.
    """
    if not header or len(header) > SIGNATURE_CHARACTERS_MAX:
        raise ForgedEventError("there is no Stripe-Signature")
    parts = [part.partition("=")[::2] for part in header.split(",")]
    times = [value for name, value in parts if name.strip() == "t" and re.fullmatch(r"[0-9]{1,12}", value)]
    signatures = [value.strip() for name, value in parts if name.strip() == "v1"]
    if len(times) != 1 or not signatures:
        raise ForgedEventError("Stripe-Signature has no time, or no signature of the kind v1")
    signed = times[0].encode() + b"." + payload
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    # This also encodes text that is not UTF-8.
    encoded = [signature.encode("utf-8", "surrogateescape") for signature in signatures]
    if not any(hmac.compare_digest(digest.encode(), signature) for digest in expected for signature in encoded):
        raise ForgedEventError("no signature is by a secret that is known here")
    if abs(now - int(times[0])) > AGE_SECONDS_MAX:
        raise ForgedEventError(f"it was signed more than {AGE_SECONDS_MAX:g} s away from the time here")


def parse_event(payload: bytes) -> StripeEvent:
    """Parse a snapshot event or a thin event. Raises InvalidStripeEventError."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise InvalidStripeEventError("it is not JSON") from None
    if not isinstance(body, dict):
        raise InvalidStripeEventError("it is not a JSON object")
    return parse_event_object(body)


def parse_event_object(body: Mapping[str, object]) -> StripeEvent:
    """Parse an event from Stripe's list. Raises InvalidStripeEventError."""
    id_, type_ = body.get("id"), body.get("type")
    if not isinstance(id_, str) or not ID.fullmatch(id_) or not isinstance(type_, str) or not TYPE.fullmatch(type_):
        raise InvalidStripeEventError("it has no id, or no type")
    if type_ in REPORTS:
        subject: object = {"object": REPORT, "id": id_}
    elif body.get("object") == "v2.core.event":
        related = body.get("related_object")
        subject = {"object": related.get("type"), "id": related.get("id")} if isinstance(related, dict) else None
    else:
        data = body.get("data")
        subject = data.get("object") if isinstance(data, dict) else None
    if not isinstance(subject, dict):
        raise InvalidStripeEventError("it is about no object")
    if subject.get("object") in PARTS_OF_CUSTOMERS and (customer := _find_customer(body, subject)) is not None:
        subject = {"object": "customer", "id": customer}
    object_type, object_id = subject.get("object"), subject.get("id")
    if not isinstance(object_type, str) or not TYPE.fullmatch(object_type):
        raise InvalidStripeEventError("its object has no type")
    if object_id is None:  # For example the invoice of a preview: there is nothing to fetch.
        object_id = ""
    if not isinstance(object_id, str) or (object_id and not ID.fullmatch(object_id)):
        raise InvalidStripeEventError("its object has no id")
    livemode = body.get("livemode")
    if not isinstance(livemode, bool):
        raise InvalidStripeEventError("it does not say whether it is live")
    return StripeEvent(id_, type_, object_type, object_id, livemode, _parse_created(body.get("created")))


def _find_customer(body: Mapping[str, object], part: Mapping[str, object]) -> object:
    """Return the id of the customer that a tax number or a payment method belongs to, or did before this event."""
    data = body.get("data")
    before = data.get("previous_attributes") if isinstance(data, dict) else None
    return part.get("customer") or (before.get("customer") if isinstance(before, dict) else None)


def _parse_created(created: object) -> int:
    """Return Unix seconds from a number (snapshot events) or an RFC 3339 time (thin events)."""
    try:
        second = created if type(created) is int else int(datetime.fromisoformat(str(created)).timestamp())
    except (ValueError, OverflowError):
        second = -1
    if not 0 <= second <= CREATED_MAX:
        raise InvalidStripeEventError("it does not say when it was made")
    return second
