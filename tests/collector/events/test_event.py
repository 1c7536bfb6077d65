"""Parsing of events, and the errors for invalid ones."""

import contextlib
import random
from typing import Any

import orjson
import pytest

from edgeproxy.collector.events.body import (
    CACHED_DIMENSIONS_BYTES_MAX,
    _parse_short_split,
    parse_body,
    parse_sound_body,
)
from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    EVENTS_MAX,
    InvalidEventBodyError,
    InvalidEventError,
    Rejection,
    UsageEvent,
    list_differences,
    parse_event,
    parse_objects,
)
from edgeproxy.config.meters import Meter

NOW = 1_800_000_000.0
METERS = {
    "tokens": Meter.model_validate({"count": "events", "dimensions": {"model": 50, "agent": 2}}),
    "users": Meter.model_validate({"count": "events", "aggregate": "unique"}),
    "seats": Meter.model_validate({"count": "events", "aggregate": "max"}),
}
OURS = {
    "id": "e-1",
    "source": "billing/worker",
    "customer": "acme",
    "meter": "tokens",
    "value": 12,
    "time": "2027-01-15T07:59:30.5+00:00",
    "request_id": "r-1",
    "upstream_request_id": "req_7f",
}
CLOUD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "billing/worker",
    "type": "tokens",
    "subject": "acme",
    "time": "2027-01-15T08:59:30.5+01:00",
    "tenant": "an attribute of the sender's own",
    "data": {"value": 12, "request_id": "r-1", "upstream_request_id": "req_7f"},
}
EVENT = UsageEvent(
    "billing/worker", "e-1", "acme", "tokens", 12, 1_799_999_970, request_id="r-1", upstream_request_id="req_7f"
)


@pytest.mark.parametrize("said", [OURS, CLOUD])
def test_own_form_and_cloud_event_parse_to_one_event(said: dict[str, Any]) -> None:
    assert parse_event(said, METERS, NOW) == EVENT
    assert EVENT.minute == 1_799_999_940


@pytest.mark.parametrize("form", [OURS, CLOUD])
def test_order_of_dimensions_is_irrelevant_and_their_values_are_compared(form: dict[str, Any]) -> None:
    def event(dimensions: dict[str, str]) -> UsageEvent:
        if form is CLOUD:
            return parse_event({**CLOUD, "data": {"value": 12, "dimensions": dimensions}}, METERS, NOW)
        return parse_event({**OURS, "dimensions": dimensions}, METERS, NOW)

    one = event({"model": "m1", "agent": "a"})
    assert one.dimensions == '{"agent":"a","model":"m1"}'
    assert list_differences(one, event({"agent": "a", "model": "m1"})) == []
    assert list_differences(one, event({"agent": "b", "model": "m1"})) == ["dimensions"]
    assert event({}).dimensions == ""


def test_repeated_event_may_name_another_pseudonym_of_a_person() -> None:
    def of(value: str, *, dimension: str = "agent", request_id: str | None = "r") -> UsageEvent:
        return EVENT._replace(dimensions=f'{{"{dimension}":"{value}"}}', request_id=request_id)

    one, other = of("u-00000000-0000-4000-8000-000000000001"), of("u-00000000-0000-4000-8000-000000000002")
    assert list_differences(one, other) == list_differences(of("ada"), one) == []
    assert list_differences(one._replace(request_id=None), other) == []
    assert list_differences(of("ada"), of("bob")) == ["dimensions"]
    assert list_differences(one, of(one.dimensions[10:-2], dimension="model")) == ["dimensions"]
    assert list_differences(one, one._replace(request_id="s")) == ["request_id"]


def test_unique_values_are_texts_or_numbers_and_readings_are_not_summed() -> None:
    users = [parse_event({**OURS, "meter": "users", "value": value}, METERS, NOW) for value in ("u-1", 7, "7")]
    assert [(user.value, user.item, user.is_summed) for user in users] == [
        (1, "u-1", False),
        (1, "7", False),
        (1, "7", False),
    ]
    assert list_differences(users[0], users[1]) == ["value"]
    seats = parse_event({**OURS, "meter": "seats"}, METERS, NOW)
    assert (seats.value, seats.item, seats.is_summed) == (12, None, False)


def test_undated_event_gets_the_current_time_and_equals_its_repetition() -> None:
    undated = {name: value for name, value in OURS.items() if name != "time"}
    first, again = parse_event(undated, METERS, NOW), parse_event(undated, METERS, NOW + 99)
    assert (first.time, first.is_dated) == (int(NOW), False)
    assert list_differences(first, again) == []
    assert list_differences(first, EVENT) == []
    assert list_differences(EVENT, EVENT._replace(time=1, value=13)) == ["value", "time"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": ""}, "id: is not a text of 1 to 255"),
        ({"id": "a\0"}, "id: is not a text"),
        ({"source": None}, "source: is not a text"),
        ({"customer": "a b"}, "customer: is not a name"),
        ({"customer": "~events"}, "customer: is not a name"),
        ({"meter": "disks"}, "meter: disks is no meter that counts events"),
        ({"value": -(10**12) - 1}, "value: is not a whole number from -10"),
        ({"value": 1.0}, "value: is not a whole number"),
        ({"value": True}, "value: is not a whole number"),
        ({"value": 10**12 + 1}, "value: is not a whole number"),
        ({"time": 5}, "time: is not a time such as"),
        ({"time": "2027-01-15"}, "time: is not a time"),
        ({"time": "2027-01-15T08:00:00"}, "time: is not a time"),
        ({"time": "2027-01-15T08:06:00Z"}, "time: is more than 300 s ahead"),
        ({"time": "2025-12-01T00:00:00Z"}, "time: is more than 400 days ago"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "time: is"),
        ({"request_id": 5}, "request_id: is not a text"),
        ({"upstream_request_id": "a\nb"}, "upstream_request_id: is not a text"),
        ({"custmer": "acme"}, "custmer: unknown field, did you mean customer?"),
        ({"xyzzy": 1}, "xyzzy: unknown field"),
        ({"xy\0zzy": 1}, "xy?zzy: unknown field"),
        ({"dimensions": ["m1"]}, 'dimensions: are no object such as {"model": "m1"}'),
        ({"dimensions": {"modell": "m1"}}, "dimensions: modell is no dimension of tokens, did you mean model?"),
        ({"dimensions": {"x": "m1"}}, "dimensions: x is no dimension of tokens"),
        ({"dimensions": {"model": "~mine"}}, "dimensions: model is not 1 to 64 visible characters"),
        ({"dimensions": {"model": 1}}, "dimensions: model is not 1 to 64 visible characters"),
        ({"meter": "users", "value": None}, "value: is neither a whole number nor a text"),
        ({"meter": "users", "value": ""}, "value: is neither a whole number nor a text"),
    ],
)
def test_error_of_an_invalid_event_names_the_field(change: dict[str, Any], why: str) -> None:
    said = {**OURS, **change}
    with pytest.raises(InvalidEventError) as caught:
        parse_event(said, METERS, NOW)
    assert str(caught.value).startswith(why)
    body = orjson.dumps([OURS, said])
    assert parse_sound_body(body, METERS, NOW) is None
    assert parse_body(body, METERS, NOW) == ([(0, EVENT)], [Rejection(1, str(caught.value), said)])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (5, "is not an object"),
        ({**CLOUD, "specversion": "0.3"}, "specversion: is not 1.0"),
        ({**CLOUD, "data": 5}, "data: is not an object"),
        ({**CLOUD, "data": {"valu": 5}}, "data.valu: unknown field, did you mean value?"),
        ({**CLOUD, "type": None}, "meter: is not a name"),
        ({**CLOUD, "tenant": [[1]]}, "tenant: is neither a text nor a number nor a boolean"),
    ],
)
def test_error_of_an_invalid_cloud_event_names_the_field(said: Any, why: str) -> None:
    with pytest.raises(InvalidEventError, match=why):
        parse_event(said, METERS, NOW)


SOUND: list[dict[str, Any]] = [
    {},
    {"time": None, "request_id": None, "upstream_request_id": None, "dimensions": None},
    {"time": "2027-01-15t08:59:59.9999999+01:00", "dimensions": {}},
    {"dimensions": {"model": "a \\b".replace(" ", ""), "agent": "~other"}},
    {"meter": "users", "value": 7},
    {"meter": "users", "value": "u-7"},
    {"meter": "seats", "value": 0, "id": 'a "quoted" \\ one'},
]


def test_valid_events_parse_together_as_they_parse_one_by_one() -> None:
    said = [{**OURS, **change} for change in SOUND]
    lines = b"\n".join(map(orjson.dumps, said)) + b"\n"
    for body in (orjson.dumps(said), lines):
        assert parse_sound_body(body, METERS, NOW) == [parse_event(one, METERS, NOW) for one in said]
    for body in (b"[", b"[]", b"", orjson.dumps([OURS] * (EVENTS_MAX + 1)), orjson.dumps([CLOUD]), b"[" * 100_000):
        assert parse_sound_body(body, METERS, NOW) is None


def test_dimensions_too_long_for_the_cache_are_parsed_with_the_whole_body() -> None:
    long = orjson.dumps({**OURS, "dimensions": {}}).replace(b"{}", b"{%b}" % (b" " * CACHED_DIMENSIONS_BYTES_MAX))
    cached = _parse_short_split.cache_info().currsize
    assert parse_sound_body(b"[%b]" % long, METERS, NOW) == [EVENT]
    assert _parse_short_split.cache_info().currsize == cached


def test_body_may_be_an_object_an_array_or_json_lines() -> None:
    lines = b"\n".join(orjson.dumps({"n": number}) for number in range(3))
    assert parse_objects(lines + b"\n\n") == parse_objects(orjson.dumps([{"n": 0}, {"n": 1}, {"n": 2}]))
    assert parse_objects(b'{"n": 0}') == [{"n": 0}]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "neither JSON nor JSON lines|there is no event"),
        (b"[]", "there is no event"),
        (b"{", "neither JSON nor JSON lines"),
        (b'{"a": 1}\n{', "neither JSON nor JSON lines"),
        (2 * orjson.dumps(OURS), "neither JSON nor JSON lines"),
        (orjson.dumps([1] * (EVENTS_MAX + 1)), "10001 events in the body, and 10000 is the most"),
        (b" " * (BODY_BYTES_MAX + 1), "more than 4 MiB"),
        (b"[" * 100_000, "neither JSON"),
    ],
)
def test_invalid_bodies_are_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidEventBodyError, match=why):
        parse_body(body, METERS, NOW)


def test_random_json_is_an_event_or_raises_invalid_event(seed: int) -> None:
    chance = random.Random(seed)
    odd = [None, True, -1, 10**30, 1.5, "", "x", "\ud800", "a" * 300, [], {}, "2027-01-15T08:00:00Z", NOW]
    for _ in range(2000):
        said = dict(chance.choice([OURS, CLOUD]))
        for name in chance.sample([*said], chance.randrange(3)):
            said[name] = chance.choice(odd)
        with contextlib.suppress(InvalidEventError):
            assert isinstance(parse_event(said, METERS, NOW), UsageEvent)
