"""What a request says: its events, and what is none. Pure.

A body of events in our form in which nothing is wrong, which is what services send, is read as a whole: in a third of
the time that it takes to look at them one by one, as is done with all others.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec
import orjson

from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    EVENTS_MAX,
    TEXT,
    BadBody,
    BadEvent,
    Event,
    Rejection,
    item_of,
    objects,
    read,
    second_of,
    split_of,
    value_of,
)
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import NAME

SPLIT_BYTES_MAX = 1_000
"""Bytes of an event's dimensions that are remembered."""


class Ours(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event in our form, of which the types alone are known to be right."""

    id: str
    source: str
    customer: str
    meter: str
    value: int | str
    time: str | None = None
    dimensions: msgspec.Raw = msgspec.Raw(b"null")
    request_id: str | None = None


LIST = msgspec.json.Decoder(list[Ours])
LINE = msgspec.json.Decoder(Ours)


def read_all(body: bytes, meters: Mapping[str, Meter], now: float) -> tuple[list[tuple[int, Event]], list[Rejection]]:
    """The events in a body, with their index, and what else is in it; raises BadBody."""
    if len(body) > BODY_BYTES_MAX:
        raise BadBody(f"the body has more than {BODY_BYTES_MAX >> 20} MiB")
    if (sound := read_sound(body, meters, now)) is not None:
        return list(enumerate(sound)), []
    events, rejected = [], []
    for position, document in enumerate(objects(body)):
        try:
            events.append((position, read(document, meters, now)))
        except BadEvent as error:
            rejected.append(Rejection(position, str(error), document))
    return events, rejected


def read_sound(body: bytes, meters: Mapping[str, Meter], now: float) -> list[Event] | None:
    """The events in a body, if all are in our form and nothing is wrong with any: as `objects` and `read` have them."""
    try:
        if body.startswith(b"["):
            records = LIST.decode(body)
        elif len(records := LINE.decode_lines(body)) != sum(map(bool, map(bytes.strip, body.split(b"\n")))):
            return None  # Several in a line, or one over several: for `objects` to judge.
        return list(_sound(records, meters, now)) if 0 < len(records) <= EVENTS_MAX else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadEvent):
        return None


def _sound(records: Iterable[Ours], meters: Mapping[str, Meter], now: float) -> Iterable[Event]:
    """Raises BadEvent, which need not say why, where one is not sound."""
    names: set[tuple[str, str]] = set()
    for one in records:
        meter = meters.get(one.meter)
        if meter is None or not TEXT.fullmatch(one.id):
            raise BadEvent
        if (who := (one.customer, one.source)) not in names:  # They recur from one to the next.
            if not (NAME.fullmatch(one.customer) and TEXT.fullmatch(one.source)):
                raise BadEvent
            names.add(who)
        if one.request_id is not None and not TEXT.fullmatch(one.request_id):
            raise BadEvent
        raw = bytes(one.dimensions)
        if len(raw) > SPLIT_BYTES_MAX:
            raise BadEvent
        item = item_of(one.value) if meter.aggregate == "unique" else None
        yield Event(
            one.source,
            one.id,
            one.customer,
            one.meter,
            1 if item is not None else value_of(one.value),
            int(now) if one.time is None else second_of(one.time, now),
            one.time is not None,
            one.request_id,
            _parse_split(raw, tuple(meter.dimensions)),
            None,
            item,
            meter.aggregate == "sum",
        )


@lru_cache(1 << 12)
def _parse_split(raw: bytes, known: tuple[str, ...]) -> str:
    """The dimensions that this JSON says, as text; raises BadEvent."""
    try:
        return split_of(orjson.loads(raw), "", known)
    except orjson.JSONDecodeError:
        raise BadEvent from None
