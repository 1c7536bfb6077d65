"""The name that was meant."""

from time import monotonic

import pytest

from edgeproxy.config.nearest import count_slips, find_nearest, format_suggestion


def test_the_nearest_known_name_is_located():
    assert find_nearest("bsic", ["pro", "basic"]) == "basic"
    assert find_nearest("zzz", ["pro", "basic"]) is None
    assert find_nearest("tire", ["tier"]) == "tier"
    assert find_nearest("cors", ["routes"]) is None
    assert find_nearest("ulr", ["tls", "url"]) == "url"


def test_among_very_many_those_that_begin_alike_are_compared():
    names = {f"customer{number}": None for number in range(300_000)} | {"acme": None}
    began = monotonic()
    assert find_nearest("acne", names) == "acme"
    assert find_nearest("zzz", names) is None
    assert find_nearest("customer_7", names) is not None
    assert monotonic() - began < 5


def test_suggestion_names_the_nearest_or_all_known_names():
    assert format_suggestion("bsic", ["basic"], "define it") == "did you mean basic?"
    assert format_suggestion("zzz", ["pro", "basic"], "define it") == "known here: basic, pro"
    assert format_suggestion("zzz", [], "define it") == "define it"
    assert format_suggestion("zzz", [f"n{number}" for number in range(13)], "define it") == "define it"


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
    assert count_slips(word, name) == count_slips(name, word) == count
