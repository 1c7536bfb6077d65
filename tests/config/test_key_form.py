"""The form of keys that are made here."""

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.key_form import BASE62, REGEX, generate_key, get_key_start, is_miswritten


def test_a_key_has_the_form_and_carries_its_check():
    for prefix in ("edge", "edgetest", "a1"):
        key = generate_key(prefix)
        assert re.fullmatch(REGEX, key)
        assert key.startswith(f"{prefix}_v1_")
        body, _, check = key.rpartition("_")
        number = 0
        for character in check:
            number = number * 62 + BASE62.index(character)
        assert number == zlib.crc32(body.encode())
        assert not is_miswritten(key.encode())
        assert get_key_start(key) == key[: len(prefix) + 10]
    assert generate_key() != generate_key()


@given(st.integers(0, 49), st.sampled_from(BASE62))
def test_any_other_character_is_noticed(place, character):
    key = generate_key()
    changed = key[:place] + character + key[place + 1 :]
    if changed != key and re.fullmatch(REGEX, changed):
        assert is_miswritten(changed.encode())


def test_keys_of_other_forms_are_not_judged():
    for other in (b"", b"ek_live_acme_6f1d0c9a7b3e4852", b"edge_v1_short_000000", b"\xff" * 50):
        assert not is_miswritten(other)
