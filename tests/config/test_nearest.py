"""The name that was meant."""

from time import monotonic

from edgeproxy.config.nearest import nearest, suggestion


def test_the_nearest_known_name_is_found():
    assert nearest("bsic", ["pro", "basic"]) == "basic"
    assert nearest("zzz", ["pro", "basic"]) is None


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
