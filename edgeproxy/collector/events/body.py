"""Parser of request bodies: valid events, and rejected ones. Pure.

A valid body of events in our form, the usual case, is parsed as a whole. That takes a third of the time of parsing
events one by one, which is done for all other bodies.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec
import orjson

from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    EVENTS_MAX,
    TEXT,
    InvalidEventBodyError,
    InvalidEventError,
    Rejection,
    UsageEvent,
    parse_dimensions,
    parse_event,
    parse_item,
    parse_objects,
    parse_second,
    parse_value,
)
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import NAME

CACHED_DIMENSIONS_BYTES_MAX = 1024
"""The most bytes of JSON dimensions that are cached: four values of 64 characters, their names, and some spaces."""


class EventRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event in our form with checked types, but unchecked values."""

    id: str
    source: str
    customer: str
    meter: str
    value: int | str
    time: str | None = None
    dimensions: msgspec.Raw = msgspec.Raw(b"null")
    request_id: str | None = None
    upstream_request_id: str | None = None


LIST = msgspec.json.Decoder(list[EventRecord])
LINE = msgspec.json.Decoder(EventRecord)


def parse_body(
    body: bytes, meters: Mapping[str, Meter], now: float
) -> tuple[list[tuple[int, UsageEvent]], list[Rejection]]:
    """Return the events in a body, with their index, and the rejected ones. Raises InvalidEventBodyError."""
    if len(body) > BODY_BYTES_MAX:
        raise InvalidEventBodyError(f"the body has more than {BODY_BYTES_MAX >> 20} MiB")
    if (sound := parse_sound_body(body, meters, now)) is not None:
        return list(enumerate(sound)), []
    events, rejected = [], []
    for position, document in enumerate(parse_objects(body)):
        try:
            events.append((position, parse_event(document, meters, now)))
        except InvalidEventError as error:
            rejected.append(Rejection(position, str(error), document))
    return events, rejected


def parse_sound_body(body: bytes, meters: Mapping[str, Meter], now: float) -> list[UsageEvent] | None:
    """Return the events in a body if all are valid and in our form, else None.

    `parse_objects` and `parse_event` return an equal result.
    """
    try:
        if body.startswith(b"["):
            records = LIST.decode(body)
        elif len(records := LINE.decode_lines(body)) != sum(map(bool, map(bytes.strip, body.split(b"\n")))):
            return None  # Several events in a line, or one event over several lines, are left to `parse_objects`.
        return list(_parse_records(records, meters, now)) if 0 < len(records) <= EVENTS_MAX else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidEventError):
        return None


def _parse_records(records: Iterable[EventRecord], meters: Mapping[str, Meter], now: float) -> Iterable[UsageEvent]:
    """Yield events. Raises InvalidEventError, without a reason, if one is invalid."""
    names: set[tuple[str, str]] = set()
    for record in records:
        meter = meters.get(record.meter)
        if meter is None or not TEXT.fullmatch(record.id):
            raise InvalidEventError
        if (sender := (record.customer, record.source)) not in names:  # They recur from one event to the next.
            if not (NAME.fullmatch(record.customer) and TEXT.fullmatch(record.source)):
                raise InvalidEventError
            names.add(sender)
        for request_id in (record.request_id, record.upstream_request_id):
            if request_id is not None and not TEXT.fullmatch(request_id):
                raise InvalidEventError
        item = parse_item(record.value) if meter.aggregate == "unique" else None
        yield UsageEvent(
            record.source,
            record.id,
            record.customer,
            record.meter,
            1 if item is not None else parse_value(record.value),
            int(now) if record.time is None else parse_second(record.time, now),
            record.time is not None,
            record.request_id,
            _parse_split(bytes(record.dimensions), tuple(meter.dimensions)),
            None,
            item,
            meter.aggregate == "sum",
            record.upstream_request_id,
        )


def _parse_split(raw: bytes, known: tuple[str, ...]) -> str:
    """Return the dimensions of this JSON as text. Raises InvalidEventError."""
    return (_parse_short_split if len(raw) <= CACHED_DIMENSIONS_BYTES_MAX else _parse_any_split)(raw, known)


def _parse_any_split(raw: bytes, known: tuple[str, ...]) -> str:
    try:
        return parse_dimensions(orjson.loads(raw), "", known)
    except orjson.JSONDecodeError:
        raise InvalidEventError from None


_parse_short_split = lru_cache(1 << 12)(_parse_any_split)
