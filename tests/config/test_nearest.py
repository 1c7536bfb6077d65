"""The name that was meant."""

from time import monotonic

import pytest

from edgeproxy.config.nearest import nearest, slips, suggestion


def test_the_nearest_known_name_is_found():
    assert nearest("bsic", ["pro", "basic"]) == "basic"
    assert nearest("zzz", ["pro", "basic"]) is None
    assert nearest("tire", ["tier"]) == "tier"
    assert nearest("cors", ["routes"]) is None
    assert nearest("ulr", ["tls", "url"]) == "url"


def test_among_very_many_those_that_begin_alike_are_compared():
    names = {f"customer{number}": None for number in range(300_000)} | {"acme": None}
    began = monotonic()
    assert nearest("acne", names) == "acme"
    assert nearest("zzz", names) is None
    assert nearest("customer_7", names) is not None
    assert monotonic() - began < 5


def test_a_suggestion_says_what_was_meant_or_what_there_is():
    assert suggestion("bsic", ["basic"], "define it") == "did you mean basic?"
    assert suggestion("zzz", ["pro", "basic"], "define it") == "known here: basic, pro"
    assert suggestion("zzz", [], "define it") == "define it"
    assert suggestion("zzz", [f"n{number}" for number in range(13)], "define it") == "define it"


@pytest.mark.parametrize(
    ("word", "name", "count"),
    [
        ("tier", "tier", 0),
        ("tire", "tier", 1),
        ("ulr", "url", 1),
        ("tiers", "tier", 1),
        ("per_ip", "peri", 2),
        ("", "a", 1),
    ],
)
def test_slips_are_counted(word, name, count):
    assert slips(word, name) == slips(name, word) == count
