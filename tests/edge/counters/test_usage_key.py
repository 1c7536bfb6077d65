"""The keys of usage: a split meter has an uncut part for each dimension."""

import pytest

from edgeproxy.edge.counters.tallies import tally_key
from edgeproxy.edge.counters.usage_key import has_room, parse_usage_key, usage_key

SPLIT = '{"agent":"a=1","model":"m/1"}'


def test_usage_key_round_trips() -> None:
    for counted in (("acme", "runs", "v1", ""), ("-", "runs", "v1", SPLIT)):
        assert parse_usage_key(usage_key(counted)) == counted
    assert usage_key(("acme", "runs", "v1", SPLIT)) == b"acme\0runs\0v1\0agent=a=1\0model=m/1"
    assert usage_key(("acme", "runs", "v1", "")) == tally_key("acme", "runs", "v1")


def test_usage_key_beyond_the_maximum_length_has_no_room() -> None:
    assert has_room(usage_key(("acme", "runs", "v1", SPLIT)))
    assert not has_room(usage_key(("a" * 64, "b" * 64, "c" * 100, SPLIT)))


@pytest.mark.parametrize("key", [b"acme\0runs", b"acme\0runs\0v1\0model", b"acme\0runs\0v1\0model=m\0"])
def test_other_keys_count_no_usage(key: bytes) -> None:
    with pytest.raises(ValueError):
        parse_usage_key(key)
