"""Meter events: accepted at once, counted later, each identifier once a day; and their sums."""

import hashlib
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Mapping

from stripe_sandbox.lists import Ids, Parameters, slice_list
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Body, SqlValue, Transaction, format_timestamp

DAY, MINUTE = 86400, 60
PAST_SECONDS, FUTURE_SECONDS = 35 * DAY, 5 * MINUTE
"""Seconds of an event before and after now."""
UNIQUE_SECONDS = DAY
"""Seconds that an identifier is unique."""
DIGITS_MAX = 15
SAMPLES = 5
"""Identifiers of each kind of error in an error report."""
BATCH = 1000
WINDOWS = {"hour": 3600, "day": DAY}
WHOLE = re.compile(r"-?[0-9]+")
MESSAGES = {
    "no_meter": "No meter has this event name.",
    "archived_meter": "The meter is not active.",
    "meter_event_no_customer_defined": "The payload names no customer.",
    "meter_event_customer_not_found": "There is no such customer.",
    "meter_event_invalid_value": "The value is not a whole number.",
    "timestamp_too_far_in_past": "The timestamp is more than 35 days in the past.",
    "timestamp_in_future": "The timestamp is more than 5 minutes in the future.",
    "meter_event_value_too_many_digits": f"The value has more than {DIGITS_MAX} digits.",
}


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Accept an event. Whether it is counted shows later."""
    now = _get_time(tx, params["payload"])
    match _find_time_error(params.get("timestamp", now), now):
        case "timestamp_too_far_in_past":
            raise _build_final_error(
                "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal "
                f"to {now - PAST_SECONDS}."
            )
        case "timestamp_in_future":
            raise _build_final_error(
                "The event timestamp cannot be more than 5 minutes in the future. Expected a timestamp less than or "
                f"equal to {now + FUTURE_SECONDS}."
            )
    identifier = params.get("identifier") or str(uuid.uuid4())
    if _is_known(tx, identifier):
        raise _build_final_error(f"An event already exists with identifier {identifier}.")
    return _accept(tx, identifier, params, now)


def accept_from_stream(tx: Transaction, params: Parameters) -> None:
    """Accept an event of a stream. A fault in it is reported later. A repeated identifier counts once."""
    identifier = params.get("identifier") or str(uuid.uuid4())
    if _is_known(tx, identifier):
        tx.record_effect("billing.meter_event.refused", identifier, error="duplicate")
    else:
        _accept(tx, identifier, params, _get_time(tx, params["payload"]))


def _find_time_error(at: int, now: int) -> str | None:
    if at < now - PAST_SECONDS:
        return "timestamp_too_far_in_past"
    return "timestamp_in_future" if at > now + FUTURE_SECONDS else None


def _is_known(tx: Transaction, identifier: str) -> bool:
    row = tx.account.connection.execute(
        "SELECT 1 FROM usage WHERE live = ? AND identifier = ? AND created > ?",
        (tx.live, identifier, tx.now - UNIQUE_SECONDS),
    ).fetchone()
    return row is not None


def _accept(tx: Transaction, identifier: str, params: Parameters, now: int) -> Body:
    """Accept an event, to be counted later; `now` is its customer's."""
    payload, at = params["payload"], params.get("timestamp", now)
    tx.account.connection.execute(
        "INSERT INTO usage (live, identifier, event_name, payload, at, created, due, state, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
        (
            *(tx.live, identifier, params["event_name"], json.dumps(payload), at, tx.now),
            *(tx.now + tx.account.usage_lag, _find_time_error(at, now)),
        ),
    )
    event = {"event_name": params["event_name"], "payload": payload, "timestamp": at}
    tx.record_effect("billing.meter_event.accepted", identifier, **event)
    return {
        "object": "billing.meter_event",
        "created": tx.now,
        "identifier": identifier,
        "livemode": tx.live,
        **event,
    }


def _get_time(tx: Transaction, payload: Mapping[str, str]) -> int:
    """Return the time of an event's customer, who may be on a test clock."""
    customer = tx.find("customer", payload.get("stripe_customer_id", ""))
    return tx.now if customer is None else tx.get_time(customer.get("test_clock"))


def _build_final_error(message: str) -> ApiError:
    """Build a refusal of an event that a retry would not avoid."""
    return ApiError(400, message, headers={"Stripe-Should-Retry": "false"})


def count_events(tx: Transaction, now: float) -> tuple[int, set[tuple[str, str]]]:
    """Count the events whose time has come, in this mode; returns their number, and their meters and customers."""
    connection = tx.account.connection
    rows = connection.execute(
        "SELECT seq, identifier, event_name, payload, error FROM usage "
        "WHERE state = 'waiting' AND due <= ? AND live = ? ORDER BY seq LIMIT ?",
        (now, tx.live, BATCH),
    ).fetchall()
    meters = {meter["event_name"]: meter for meter in tx.all("billing.meter")} if rows else {}
    active = {name: meter for name, meter in meters.items() if meter["status"] == "active"}
    meters.update({meter["event_name"]: meter for meter in active.values()})
    wrong: dict[str | None, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    counted: set[tuple[str, str]] = set()
    for seq, identifier, name, written, time_error in rows:
        meter = meters.get(name)
        error, customer, value = _validate(tx, meter, json.loads(written))
        error = error or time_error
        state = "counted" if error is None else "refused"
        connection.execute(
            "UPDATE usage SET state = ?, customer = ?, meter = ?, value = ?, error = ? WHERE seq = ?",
            (state, customer, meter and meter["id"], value, error, seq),
        )
        if error is None and meter is not None and customer is not None:
            counted.add((meter["id"], customer))
        if error is not None:
            wrong[None if meter is None else meter["id"]][error].append(identifier)
            tx.record_effect("billing.meter_event.refused", identifier, error=error)
    for id, errors in wrong.items():
        _record_error_report(tx, None if id is None else tx.get("billing.meter", id), errors)
    return len(rows), counted


def _validate(
    tx: Transaction, meter: Body | None, payload: Mapping[str, str]
) -> tuple[str | None, str | None, int | None]:
    """Return the error of an event, else its customer and its value."""
    if meter is None:
        return "no_meter", None, None
    customer = payload.get(meter["customer_mapping"]["event_payload_key"])
    value = payload.get(meter["value_settings"]["event_payload_key"])
    if meter["status"] != "active":
        return "archived_meter", customer, None
    if not customer:
        return "meter_event_no_customer_defined", None, None
    if tx.find("customer", customer) is None:
        return "meter_event_customer_not_found", customer, None
    if meter["default_aggregation"]["formula"] == "count":
        return None, customer, 1
    if value is None or not WHOLE.fullmatch(value):
        return "meter_event_invalid_value", customer, None
    if len(value.lstrip("-").lstrip("0")) > DIGITS_MAX:
        return "meter_event_value_too_many_digits", customer, None
    return None, customer, int(value)


def _record_error_report(tx: Transaction, meter: Body | None, errors: Mapping[str, list[str]]) -> None:
    """Emit an event of v2 with the events that were not counted: samples of each kind of error."""
    kinds = [
        {
            "code": code,
            "error_count": len(identifiers),
            "sample_errors": [
                {"error_message": MESSAGES[code], "request": {"identifier": identifier}}
                for identifier in identifiers[:SAMPLES]
            ],
        }
        for code, identifiers in errors.items()
    ]
    many = sum(len(identifiers) for identifiers in errors.values())
    data = {
        "developer_message_summary": f"There {'is 1 invalid event' if many == 1 else f'are {many} invalid events'}",
        "reason": {"error_count": many, "error_types": kinds},
        "validation_start": format_timestamp(tx.now - MINUTE),
        "validation_end": format_timestamp(tx.now),
    }
    what = "no_meter_found" if meter is None else "error_report_triggered"
    tx.record_thin_event(f"v1.billing.meter.{what}", meter, data)


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel an event, within a day."""
    identifier = (params.get("cancel") or {}).get("identifier")
    if not identifier:
        raise invalid_request("Missing required param: cancel[identifier].", "cancel[identifier]", "parameter_missing")
    row = tx.account.connection.execute(
        "SELECT seq, created, state FROM usage WHERE live = ? AND identifier = ? AND event_name = ? ORDER BY seq DESC",
        (tx.live, identifier, params["event_name"]),
    ).fetchone()
    if row is None:
        raise invalid_request(f"No meter event with identifier {identifier} was found.", "cancel[identifier]")
    seq, created, state = row
    if created <= tx.now - UNIQUE_SECONDS:
        raise invalid_request("Meter events can be cancelled within 24 hours of their receipt.", "cancel[identifier]")
    if state == "cancelled":
        raise invalid_request(
            f"The meter event with identifier {identifier} was cancelled already.", "cancel[identifier]"
        )
    tx.account.connection.execute("UPDATE usage SET state = 'cancelled' WHERE seq = ?", (seq,))
    tx.record_effect("billing.meter_event.cancelled", identifier, event_name=params["event_name"])
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": params["event_name"],
        "livemode": tx.live,
        "status": "pending",
        "type": "cancel",
    }


# ---- sums


def compute_total(tx: Transaction, meter: str, customer: str, start: int, end: int) -> int:
    """Compute the value of a customer's usage by the meter's formula."""
    return _aggregate(tx, tx.get("billing.meter", meter), customer, start, end, None) or 0


def _aggregate(tx: Transaction, meter: Body, customer: str, start: int, end: int, seen_by: float | None) -> int | None:
    """Compute the `total` of events that were due by then; None where nothing was counted."""
    where = "meter = ? AND customer = ? AND at >= ? AND at < ? AND state = 'counted'"
    values: tuple[SqlValue, ...] = (meter["id"], customer, start, end)
    if seen_by is not None:
        where += " AND due <= ?"
        values += (seen_by,)
    formula = meter["default_aggregation"]["formula"]
    if formula == "last":
        query = f"SELECT value FROM usage WHERE {where} ORDER BY at DESC, seq DESC LIMIT 1"
    else:
        query = f"SELECT {'COUNT(*)' if formula == 'count' else 'SUM(value)'} FROM usage WHERE {where}"
    row = tx.account.connection.execute(query, values).fetchone()
    return None if row is None or (not row[0] and formula == "count") else row[0]


def list_summaries(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the usage of a customer, whole or by hour or day, as far as summaries are up to date."""
    meter = tx.get("billing.meter", ids["id"])
    tx.get("customer", params["customer"], "customer")
    start, end, window = (
        params["start_time"],
        params["end_time"],
        WINDOWS.get(params.get("value_grouping_window", ""), 0),
    )
    for name, moment in (("start_time", start), ("end_time", end)):
        if moment % (window or MINUTE):
            what = params.get("value_grouping_window", "minute")
            raise invalid_request(f"The {name} must be aligned with {what} boundaries.", name)
    if end <= start:
        raise invalid_request("The end_time must be after the start_time.", "end_time")
    seen_by = tx.now - tx.account.summary_lag
    bodies = []
    for first in range(start, end, window or end - start):
        last = first + (window or end - start)
        value = _aggregate(tx, meter, params["customer"], first, last, seen_by)
        if value is not None:
            bodies.append(_summary(tx, meter, params["customer"], first, last, value))
    bodies.reverse()
    return slice_list(tx, bodies, params)


def _summary(tx: Transaction, meter: Body, customer: str, start: int, end: int, value: int) -> Body:
    name = hashlib.sha256(f"{meter['id']} {customer} {start} {end}".encode()).hexdigest()[:24]
    return {
        "id": f"mtrusg_{name}",
        "object": "billing.meter_event_summary",
        "aggregated_value": value + tx.account.summary_error(),
        "end_time": end,
        "livemode": tx.live,
        "meter": meter["id"],
        "start_time": start,
    }
