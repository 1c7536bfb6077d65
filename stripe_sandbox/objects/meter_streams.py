"""Meter events of v2: in JSON, one at a time or up to a hundred in a stream, which has sessions of its own."""

import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import usage
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Account, Body, Fields, Transaction, format_timestamp, generate_id

SESSION = "v2.billing.meter_event_session"
SESSION_SECONDS = 15 * 60
EVENTS_MAX = 100
"""Events of one call of a stream."""
NAME_MAX = 100
"""Characters of an identifier or an event name."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Accept an event. Its time, and that it is there once, are checked at once."""
    event = usage.create(tx, ids, _parse_event(params, ""))
    created, timestamp = format_timestamp(event["created"]), format_timestamp(event["timestamp"])
    return {**event, "object": "v2.billing.meter_event", "created": created, "timestamp": timestamp}


def create_stream(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Accept up to a hundred events, which are checked later; the response is empty."""
    if not 1 <= len(params["events"]) <= EVENTS_MAX:
        raise invalid_request(f"A call takes from 1 to {EVENTS_MAX} events.", "events")
    for event in [_parse_event(event, f"events[{place}]") for place, event in enumerate(params["events"])]:
        usage.accept_from_stream(tx, event)
    return {}


def _parse_event(params: Fields, where: str) -> Fields:
    """Parse an event: its time in seconds."""
    names = {name: f"{where}[{name}]" if where else name for name in ("event_name", "identifier", "timestamp")}
    for name in ("event_name", "identifier"):
        if len(params.get(name, "")) > NAME_MAX:
            raise invalid_request(f"Invalid string: must be at most {NAME_MAX} characters", names[name])
    if "timestamp" not in params:
        return params
    try:
        at = datetime.fromisoformat(params["timestamp"])
    except ValueError:
        raise invalid_request("Invalid timestamp: must be a date and time of RFC 3339", names["timestamp"]) from None
    return {**params, "timestamp": int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())}


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel an event, within a day."""
    adjustment = usage.cancel(tx, ids, params)
    id = generate_id("mtradj" if tx.live else "mtradj_test")
    return {**adjustment, "id": id, "object": "v2.billing.meter_event_adjustment", "created": format_timestamp(tx.now)}


def create_session(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a session: a token that authenticates a stream for a quarter of an hour."""
    id = generate_id("mes" if tx.live else "mes_test")
    session: Body = {
        "id": id,
        "object": SESSION,
        "authentication_token": f"{id}.{secrets.token_hex(24)}",
        "created": format_timestamp(tx.now),
        "expires_at": format_timestamp(tx.now + SESSION_SECONDS),
        "livemode": tx.live,
        "_expires": tx.now + SESSION_SECONDS,
    }
    return tx.insert(session)


def authenticate(account: Account, headers: Mapping[str, str], now: int) -> bool:
    """Return whether the token of a stream is of the live mode; raises the refusal of one that is not valid."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    live = not token.startswith("mes_test_")
    session = Transaction(account, live, now).find(SESSION, token.partition(".")[0])
    right = session is not None and hmac.compare_digest(session["authentication_token"].encode(), token.encode())
    if session is None or not right or scheme.lower() != "bearer":
        raise ApiError(401, "A meter event stream needs the authentication_token of a meter event session.")
    if session["_expires"] <= now:
        raise ApiError(
            401,
            "The temporary session token has expired.",
            kind="temporary_session_expired",
            code="billing_meter_event_session_expired",
        )
    return live
