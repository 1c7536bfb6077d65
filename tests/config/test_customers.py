"""Customers and keys in a worker: stored as text, and parsed on request."""

import gc
import hashlib
import tracemalloc

import orjson
import pytest

from edgeproxy.config.customers import DirectoryKey, Flag, LimitRaise, Subscriber
from edgeproxy.config.directory import (
    Document,
    FlagDocument,
    KeyOwner,
    find_raise_end,
    parse_customer,
    parse_document,
    parse_flag,
    parse_key,
    parse_line,
    render_flag_line,
    render_line,
    render_removal,
)
from edgeproxy.config.edge.customer_store import RowIndex, render_lines
from edgeproxy.config.edge.load import dump_settings, restore_settings

KEYS = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(3)]


def people_of(loaded):
    settings = loaded(
        f"""\
tiers: {{basic: {{limits: [{{rate: 60/min}}]}}}}
customers:
  plain: {{tier: basic}}
  free: {{tier: basic, limits: []}}
  own: {{tier: basic, limits: [{{rate: 7/301ms}}, {{name: daily, rate: 1000/day}}]}}
  rich:
    tier: basic
    limits: [{{rate: 5/s, algorithm: hybrid, burst: 9, scope: key, mode: shadow, cost_header: X-Cost}}]
    concurrency: 5
    quotas: [{{meter: requests, per: month, included: 9007199254740991, cap: hard, timezone: Europe/Berlin}}]
    burst_credits: {{earn: 10/min, max: 600}}
    priority: 7
    message: "Say hello to süd@example.com"
    paused: {{why: unpaid, status: 402}}
    regions: {{allow: [eu-west, eu-north], prefer: eu-west}}
  poor: {{tier: basic, concurrency: none, quotas: [], burst_credits: off, priority: 0, paused: {{why: gone}}}}
  {KEYS[0]}: {{tier: basic}}
keys:
  - {{sha256: {KEYS[0]}, customer: own, scopes: [read, "a:b/c"], expires: 2027-01-01T00:00:00.25Z}}
  - {{sha256: {KEYS[1]}, customer: plain, scopes: []}}
  - {{sha256: {KEYS[2]}, customer: {KEYS[0]}}}
"""
    )
    return settings, restore_settings(dump_settings(settings))[1]


def test_garbage_collector_tracks_no_object_of_a_customer(loaded):
    _, people = people_of(loaded)
    gc.collect()
    assert len(people._texts) > 1
    assert not any(map(gc.is_tracked, people._texts))
    # Everything else is in a few pieces of memory. The one tuple is the owner of the key that was found last.
    assert {type(part) for part in vars(people).values()} == {bool, bytes, list, memoryview, tuple, RowIndex}


def test_directory_knows_its_customers(loaded):
    _, people = people_of(loaded)
    assert [people.has_customer(name) for name in ("plain", KEYS[0], KEYS[1], "nobody")] == [True, True, False, False]


# ---- the directory


def test_a_line_of_the_directory_says_all_of_a_customer(loaded):
    settings, _ = people_of(loaded)
    message = render_lines(settings)
    assert message.keys() == settings.customers.keys()
    for name, customer in settings.customers.items():
        reported = parse_document(message[name])
        assert (reported.name, reported.tier) == (name, "basic")
        assert parse_customer(reported.customer, 0.0) == Subscriber.model_construct(**dict(customer))
        keys = [parse_key(KeyOwner(name, reported.customer, key), digest) for digest, key in reported.keys.items()]
        assert keys == [DirectoryKey.model_construct(**dict(key)) for key in settings.keys if key.customer == name]


def test_equal_customers_render_to_equal_bytes(loaded):
    reported = "tiers: {t: {}}\ncustomers: {c: %s}\nkeys: [{sha256: %s, customer: c, scopes: %s}]\n"
    one = render_lines(loaded(reported % ("{tier: t, priority: 3}", KEYS[0], "[b, a, c]")))
    other = render_lines(loaded(reported % ("{priority: 3, tier: t}", KEYS[0].upper(), "[c, b, a]")))
    assert one == other
    keys = {KEYS[0]: {"scopes": ["a", "b", "c"]}}
    assert orjson.loads(one["c"]) == {"name": "c", "customer": {"tier": "t", "priority": 3}, "keys": keys}


def test_a_crowd_takes_little_memory(loaded):
    """Of a million customers with a tier and a key each, and nothing else, a machine has room for all."""
    many = 500
    names = [f"customer-{n:07d}" for n in range(many)]
    customers = "".join(f"  {name}: {{tier: basic}}\n" for name in names)
    keys = "".join(f"  - {{sha256: {hashlib.sha256(name.encode()).hexdigest()}, customer: {name}}}\n" for name in names)
    text = f"tiers: {{basic: {{}}}}\ncustomers:\n{customers}keys:\n{keys}"
    render_lines(loaded(text))  # Objects that a process needs once are no customer's.
    tracemalloc.start()
    try:
        settings = loaded(text)
        message = render_lines(settings)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(settings.customers) == len(message) == many
    assert taken / many < 500


def test_a_line_may_say_that_a_customer_is_gone():
    assert parse_line(render_removal("c")) == Document("c", "", None, {})


def test_directory_parser_refuses_unknown_fields():
    with pytest.raises(ValueError, match="later"):
        parse_customer('{"tier": "t", "later": 1}', 0.0)
    with pytest.raises(ValueError, match="later"):
        parse_key(KeyOwner("c", "", '{"later": 1}'), bytes(32))


def test_a_raise_of_limits_is_left_out_from_its_end_on():
    line = render_line("c", Subscriber(tier="t", message='"raised":', raised=LimitRaise(factor=2, ends_at=7.5)), ())
    content = parse_document(line).customer
    raised = [parse_customer(content, at).raised is not None for at in (7.4, 7.5)]
    assert (find_raise_end(content), raised) == (7.5, [True, False])
    for other in ("", '{"tier":"t","message":"\\"raised\\":"}', '{"tier":"t","raised":null}', '{"raised":1}'):
        assert find_raise_end(other) is None


def test_a_line_of_the_directory_says_all_of_a_flag():
    flag = Flag(percent=10, tiers=("pro",))
    message = parse_line(render_flag_line("new", flag))
    assert isinstance(message, FlagDocument)
    assert (message.name, parse_flag(message.flag)) == ("new", flag)
