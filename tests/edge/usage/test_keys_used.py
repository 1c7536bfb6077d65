"""Which keys were used today, told once each, again until the collector has heard of them."""

import hashlib

from edgeproxy.wire.key_uses import FIELD, KEYS_MAX, KEYS_PER_BATCH_MAX, KeysUsed, parse_field

DAY = 86_400


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def told(keys: KeysUsed) -> list[str]:
    """Return the keys that go with the next batch, and acknowledge them."""
    fields = keys.format_fields()
    keys.acknowledge()
    return parse_field(fields.get(FIELD))[1]


def test_each_used_key_is_reported_once_a_day() -> None:
    keys = KeysUsed()
    assert keys.format_fields() == {}
    keys.record([digest(1), digest(2)], 5 * DAY + 7)
    assert parse_field(keys.format_fields()[FIELD]) == (5 * DAY, [digest(1).hex(), digest(2).hex()])
    keys.record([digest(2), digest(3)], 5 * DAY + 8)  # This happens while a batch is unacknowledged.
    assert len(parse_field(keys.format_fields()[FIELD])[1]) == 3
    assert len(told(keys)) == 3
    keys.record([digest(1)], 6 * DAY - 1)
    assert told(keys) == []
    keys.record([digest(1)], 6 * DAY)
    assert told(keys) == [digest(1).hex()]


def test_many_keys_go_with_many_batches() -> None:
    keys = KeysUsed()
    keys.record([digest(number) for number in range(2 * KEYS_PER_BATCH_MAX + 1)], DAY)
    found = [told(keys) for _ in range(4)]
    assert [len(some) for some in found] == [KEYS_PER_BATCH_MAX, KEYS_PER_BATCH_MAX, 1, 0]
    assert len({one for some in found for one in some}) == 2 * KEYS_PER_BATCH_MAX + 1


def test_remembered_keys_are_bounded() -> None:
    keys = KeysUsed()
    keys.record((number.to_bytes(32, "big") for number in range(KEYS_MAX + 10)), DAY)
    assert sum(len(told(keys)) for _ in range(KEYS_MAX // KEYS_PER_BATCH_MAX + 1)) == KEYS_MAX


def test_malformed_keys_used_field_parses_to_no_keys() -> None:
    for odd in (None, "", "5", "5;", "x;AAAA", "5;AAAA", "5;A", "5;====", "-1;" + "A" * 43 + "=", "5;" + "A" * 9999):
        assert parse_field(odd) == (0, [])
