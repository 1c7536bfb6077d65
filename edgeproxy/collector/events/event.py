"""A usage event and its two forms: ours, and CloudEvents 1.0. Pure.

Our form is `{id, source, customer, meter, value, time, dimensions, request_id, upstream_request_id, replaces}`. In a
CloudEvent `type` is the meter and `subject` the customer; `data` holds the others except `id`, `source` and `time`.
`source` and `id` together identify an event.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import orjson

from edgeproxy.base.json_values import JsonValue
from edgeproxy.collector.accounts.end_user_pseudonyms import is_pseudonym
from edgeproxy.collector.accounts.end_users import HASHED
from edgeproxy.config.dimensions import A_VALUE, VALUE, format_dimensions
from edgeproxy.config.dimensions import parse_dimensions as parse_stored_dimensions
from edgeproxy.config.meters import Meter
from edgeproxy.config.nearest import find_nearest
from edgeproxy.wire.batch import NAME

EVENTS_MAX = 10_000
"""The most events in a request."""
BODY_BYTES_MAX = 4 << 20
"""The largest body of a request in bytes, uncompressed."""
VALUE_MAX = 10**12
"""The largest value of one event."""
CHARACTERS_MAX = 255
"""The most characters of an id, a source or a request id."""
KEPT_SECONDS = 400 * 86400
"""Counted events are stored for this many seconds. Older events are rejected, because they might be duplicates."""
AHEAD_SECONDS = 300
"""An event's time may be ahead of our clock by this many seconds."""

SUM_TAKEN_BACK, READING_TAKEN_BACK = 2, 3
"""Values of the column `is_summed` for events that another event has replaced."""
LEAP_SECOND = re.compile(r"T(\d\d):(\d\d):60")
"""The leap second at the end of a UTC day (RFC 3339 section 5.7)."""

TEXT = re.compile(rf"[!-~](?:[ -~]{{0,{CHARACTERS_MAX - 1}}})")
REQUEST_ID_FIELDS = ("request_id", "upstream_request_id")
FIELDS = ("id", "source", "customer", "meter", "value", "time", "dimensions", *REQUEST_ID_FIELDS, "replaces")
DATA_FIELDS = ("value", "dimensions", *REQUEST_ID_FIELDS, "replaces")


class InvalidEventError(ValueError):
    """The event is invalid. The text is a sentence that gives the reason."""


class InvalidEventBodyError(ValueError):
    """The body contains no events in a known form. The text is a sentence that gives the reason."""


class Rejection(NamedTuple):
    """An event that was not counted: its position in the request, the error, and the event as sent."""

    position: int
    error: str
    document: JsonValue
    is_stored: bool = True
    """The event becomes a dead letter."""


class UsageEvent(NamedTuple):
    """Usage that a service reports, in the order of the table's columns. `time` is in Unix seconds."""

    source: str
    id: str
    customer: str
    meter: str
    value: int
    time: int
    is_dated: bool = True
    """The sender stated the time. Otherwise it is the time of arrival, so a repeated event has another time."""
    request_id: str | None = None
    dimensions: str = ""
    """Dimensions as text (config/dimensions.py)."""
    folded: str | None = None
    """The dimensions that the event is counted under if they differ; unknown before it is counted."""
    item: str | None = None
    """The item that is counted once, if the meter is `unique`. The value is then 1."""
    is_summed: bool = True
    """The meter adds up values. Otherwise the event is a reading, and the last or the highest reading counts."""
    upstream_request_id: str | None = None
    """The request id of another company's API. Their support and their invoices refer to it."""
    replaces: str | None = None
    """The id of an earlier event of the same source that this event replaces."""

    @property
    def minute(self) -> int:
        """The Unix second of the start of the minute that counts the event."""
        return self.time - self.time % 60

    @property
    def is_correction(self) -> bool:
        """The event reduces earlier usage. Not every token may send such events."""
        return self.value < 0 or self.replaces is not None


def parse_objects(body: bytes) -> list[JsonValue]:
    """Parse a JSON object, an array of objects, or JSON lines. Raises InvalidEventBodyError."""
    if len(body) > BODY_BYTES_MAX:
        raise InvalidEventBodyError(f"the body has more than {BODY_BYTES_MAX >> 20} MiB")
    try:
        document = orjson.loads(body)
        events = document if isinstance(document, list) else [document]
    except orjson.JSONDecodeError as document_error:
        lines = body.split(b"\n")
        try:
            events = [orjson.loads(line) for line in lines if line.strip()]
        except orjson.JSONDecodeError:
            raise InvalidEventBodyError(f"the body is neither JSON nor JSON lines: {document_error}") from None
    if not events:
        raise InvalidEventBodyError("there is no event in the body")
    if len(events) > EVENTS_MAX:
        raise InvalidEventBodyError(f"there are {len(events)} events in the body, and {EVENTS_MAX} is the most")
    return events


def parse_event(document: JsonValue, meters: Mapping[str, Meter], now: float) -> UsageEvent:
    """Parse one event from JSON. `meters` are the meters that count events. Raises InvalidEventError."""
    if not isinstance(document, dict):
        raise InvalidEventError("is not an object")
    fields = (
        _convert_cloud_event(document) if "specversion" in document else _require_known_fields(document, FIELDS, "")
    )
    source, id_ = _parse_text(fields, "source"), _parse_text(fields, "id")
    customer, name = _parse_name(fields, "customer"), _parse_name(fields, "meter")
    meter = meters.get(name)
    if meter is None:
        raise InvalidEventError(f"meter: {name} is no meter that counts events")
    item = parse_item(fields.get("value")) if meter.aggregate == "unique" else None
    return UsageEvent(
        source=source,
        id=id_,
        customer=customer,
        meter=name,
        value=1 if item is not None else parse_value(fields.get("value"), least=_get_least(meter)),
        time=int(now) if fields.get("time") is None else parse_second(fields["time"], now),
        is_dated=fields.get("time") is not None,
        request_id=_parse_optional_text(fields, "request_id"),
        dimensions=parse_dimensions(fields.get("dimensions"), name, meter.dimensions),
        item=item,
        is_summed=meter.aggregate == "sum",
        upstream_request_id=_parse_optional_text(fields, "upstream_request_id"),
        replaces=_parse_optional_text(fields, "replaces"),
    )


def _get_least(meter: Meter) -> int:
    """Return the least value of an event of a meter. Only sums can be corrected downwards."""
    return -VALUE_MAX if meter.aggregate == "sum" else 0


def _convert_cloud_event(document: dict[str, object]) -> dict[str, object]:
    """Return a CloudEvent's fields under our names. Extension attributes belong to the sender and are ignored."""
    if document["specversion"] != "1.0":
        raise InvalidEventError("specversion: is not 1.0")
    for name, value in document.items():
        if name != "data" and isinstance(value, dict | list):
            raise InvalidEventError(f"{format_name(name)}: is neither a text nor a number nor a boolean")
    data = document.get("data")
    if not isinstance(data, dict):
        raise InvalidEventError('data: is not an object such as {"value": 1}')
    _require_known_fields(data, DATA_FIELDS, "data.")
    ours = {"customer": document.get("subject"), "meter": document.get("type")}
    return {**{name: document.get(name) for name in ("id", "source", "time")}, **ours, **data}


def _require_known_fields(document: dict[str, object], names: tuple[str, ...], prefix: str) -> dict[str, object]:
    for name in document:
        if name not in names:
            near = find_nearest(name, names)
            raise InvalidEventError(
                f"{prefix}{format_name(name)}: unknown field" + (f", did you mean {near}?" if near else "")
            )
    return document


def format_name(name: str) -> str:
    """Return a field name for an error message, without unprintable characters: some databases reject NUL."""
    return "".join(character if character.isprintable() else "?" for character in name[:40])


def _parse_text(fields: dict[str, object], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not TEXT.fullmatch(text):
        raise InvalidEventError(f"{name}: is not a text of 1 to {CHARACTERS_MAX} printable characters of ASCII")
    return text


def _parse_optional_text(fields: dict[str, object], name: str) -> str | None:
    return None if fields.get(name) is None else _parse_text(fields, name)


def _parse_name(fields: dict[str, object], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise InvalidEventError(f"{name}: is not a name")
    return text


def parse_value(value: object, *, least: int = 0) -> int:
    """Parse the amount to add up, or the level of a gauge. Raises InvalidEventError."""
    if type(value) is not int or not least <= value <= VALUE_MAX:
        raise InvalidEventError(f"value: is not a whole number from {least} to {VALUE_MAX}")
    return value


def parse_item(value: object) -> str:
    """Parse an item that is counted once: a text, or a number as text. Raises InvalidEventError."""
    if type(value) is int and 0 <= value <= VALUE_MAX:
        return str(value)
    if not isinstance(value, str) or not TEXT.fullmatch(value):
        raise InvalidEventError(
            f"value: is neither a whole number nor a text of 1 to {CHARACTERS_MAX} printable characters"
        )
    return value


def parse_dimensions(value_by_name: object, name: str, known: Collection[str]) -> str:
    """Return the dimensions as text. `known` are the meter's dimensions. Raises InvalidEventError."""
    if value_by_name is None or value_by_name == {}:
        return ""
    if not isinstance(value_by_name, dict):
        raise InvalidEventError('dimensions: are no object such as {"model": "m1"}')
    for dimension, value in value_by_name.items():
        if dimension not in known:
            near = find_nearest(dimension, known)
            hint = f", did you mean {near}?" if near else ""
            raise InvalidEventError(f"dimensions: {format_name(dimension)} is no dimension of {name}{hint}")
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            raise InvalidEventError(f"dimensions: {dimension} is not {A_VALUE}")
    return format_dimensions(value_by_name)


def parse_second(text: object, now: float) -> int:
    """Parse an RFC 3339 time into a Unix second. Raises InvalidEventError, also if the time is too far from now."""
    try:
        if not isinstance(text, str) or len(text) > 40 or "T" not in (upper := text.upper()):
            raise ValueError
        # A leap second belongs to the day that it ends, and so to that day's billing period.
        at = datetime.fromisoformat(LEAP_SECOND.sub(r"T\1:\2:59", upper))
        if at.tzinfo is None:
            raise ValueError
        second = int(at.timestamp() // 1)
        if LEAP_SECOND.search(upper) and second % 86400 != 86399:
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidEventError("time: is not a time such as 2027-01-01T12:00:00Z") from None
    if second > now + AHEAD_SECONDS:
        raise InvalidEventError(f"time: is more than {AHEAD_SECONDS} s ahead")
    if second < now - KEPT_SECONDS:
        raise InvalidEventError(f"time: is more than {KEPT_SECONDS // 86400} days ago")
    return second


def list_differences(counted: UsageEvent, sent: UsageEvent) -> list[str]:
    """List the fields that differ between a counted event and a resent event of the same id."""
    differing = [name for name in ("customer", "meter", "value") if getattr(counted, name) != getattr(sent, name)]
    # The erasure of a person clears request ids, so a missing id is no difference.
    differing += [name for name in REQUEST_ID_FIELDS if getattr(counted, name) not in (None, getattr(sent, name))]
    if not _have_same_dimensions(counted.dimensions, sent.dimensions):
        differing.append("dimensions")
    if counted.replaces != sent.replaces:
        differing.append("replaces")
    if counted.item != sent.item and "value" not in differing and _is_hashed(counted) == _is_hashed(sent):
        differing.append("value")
    if counted.is_dated and sent.is_dated and counted.time != sent.time:
        differing.append("time")
    return differing


def _have_same_dimensions(counted: str, sent: str) -> bool:
    """Return whether two dimension texts are equal apart from pseudonyms.

    An erased person has a new pseudonym, and an event counted before pseudonyms were introduced contains a name.
    """
    if counted == sent:
        return True
    one, other = parse_stored_dimensions(counted), parse_stored_dimensions(sent)
    return one.keys() == other.keys() and all(
        value == other[name] or is_pseudonym(value) or is_pseudonym(other[name]) for name, value in one.items()
    )


def _is_hashed(event: UsageEvent) -> bool:
    return event.item is not None and event.item.startswith(HASHED)
