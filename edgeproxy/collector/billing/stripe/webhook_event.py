"""What Stripe tells: the events that are taken, read of their bytes. Pure.

An event says that something has changed. What is true now is asked of Stripe when it is applied, so nothing of an event
is kept but which object it is about.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

BYTES_MAX = 256 << 10
"""Bytes that an event may have."""
AGE_SECONDS_MAX = 300.0
"""Seconds that a signature may be old, or ahead of our clock."""
SIGNATURE_CHARACTERS_MAX = 1000
ID = re.compile(r"[A-Za-z0-9_]{3,255}")
TYPE = re.compile(r"[A-Za-z0-9_.]{1,255}")

TAKEN: Sequence[str] = (
    "invoice.",
    "customer.subscription.",
    "charge.",
    "refund.",
    "checkout.session.",
    "customer.updated",
    "customer.deleted",
    "v1.billing.meter.error_report_triggered",
    "v1.billing.meter.no_meter_found",
)
"""The types that are applied: a name, or how names begin that end with a point."""
REPORT = "billing.meter_error_report"
"""What stands for the object of a report on meter events: the report is the event itself."""
REPORTS = frozenset({"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"})


class Forged(Exception):
    """Nobody who knows the secret has sent this, or not lately: a sentence that may be told."""


class Unreadable(Exception):
    """It is no event: a sentence that may be told."""


class Event(NamedTuple):
    """That something has changed."""

    id: str
    type: str
    object_type: str
    object: str
    """The id of what has changed."""
    livemode: bool
    created: int
    """Unix seconds, by Stripe's clock."""

    @property
    def is_taken(self) -> bool:
        """Whether anything is done about it."""
        return any(self.type == name or (name.endswith(".") and self.type.startswith(name)) for name in TAKEN)


def verify(payload: bytes, header: str | None, secrets: Sequence[str], now: float) -> None:
    """Raise Forged unless these bytes are signed by one of the secrets, lately.

    The header is `t=SECONDS,v1=HEX[,v1=HEX]`: HMAC-SHA256 over `SECONDS.` and the bytes.
    """
    if not header or len(header) > SIGNATURE_CHARACTERS_MAX:
        raise Forged("there is no Stripe-Signature")
    parts = [part.partition("=")[::2] for part in header.split(",")]
    times = [value for name, value in parts if name.strip() == "t" and re.fullmatch(r"[0-9]{1,12}", value)]
    signatures = [value.strip() for name, value in parts if name.strip() == "v1"]
    if len(times) != 1 or not signatures:
        raise Forged("Stripe-Signature has no time, or no signature of the kind v1")
    signed = times[0].encode() + b"." + payload
    good = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    given = [said.encode("utf-8", "surrogateescape") for said in signatures]  # Of what is not UTF-8 too.
    if not any(hmac.compare_digest(one.encode(), said) for one in good for said in given):
        raise Forged("no signature is by a secret that is known here")
    if abs(now - int(times[0])) > AGE_SECONDS_MAX:
        raise Forged(f"it was signed more than {AGE_SECONDS_MAX:g} s away from the time here")


def read(payload: bytes) -> Event:
    """Read a snapshot event or a thin one; raises Unreadable."""
    try:
        said = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise Unreadable("it is not JSON") from None
    if not isinstance(said, dict):
        raise Unreadable("it is not a JSON object")
    return event_of(said)


def event_of(said: Mapping[str, Any]) -> Event:
    """Read an event as Stripe lists it; raises Unreadable."""
    id_, type_ = said.get("id"), said.get("type")
    if not isinstance(id_, str) or not ID.fullmatch(id_) or not isinstance(type_, str) or not TYPE.fullmatch(type_):
        raise Unreadable("it has no id, or no type")
    if type_ in REPORTS:
        of: Any = {"object": REPORT, "id": id_}
    elif said.get("object") == "v2.core.event":
        related = said.get("related_object")
        of = {"object": related.get("type"), "id": related.get("id")} if isinstance(related, dict) else None
    else:
        data = said.get("data")
        of = data.get("object") if isinstance(data, dict) else None
    if not isinstance(of, dict):
        raise Unreadable("it is about no object")
    kind, about = of.get("object"), of.get("id")
    if not isinstance(kind, str) or not TYPE.fullmatch(kind):
        raise Unreadable("its object has no type")
    if about is None:  # As the invoice of a preview: there is nothing to ask for.
        about = ""
    if not isinstance(about, str) or (about and not ID.fullmatch(about)):
        raise Unreadable("its object has no id")
    livemode = said.get("livemode")
    if not isinstance(livemode, bool):
        raise Unreadable("it does not say whether it is live")
    return Event(id_, type_, kind, about, livemode, _moment(said.get("created")))


def _moment(created: object) -> int:
    """Unix seconds: a number in snapshots, RFC 3339 in thin events."""
    if type(created) is int and 0 <= created < 1 << 40:
        return created
    try:
        return int(datetime.fromisoformat(str(created)).timestamp())
    except (ValueError, OverflowError):
        raise Unreadable("it does not say when it was made") from None
