"""The tests' own reader of structured fields, so that what it accepts means something."""

import pytest

from tests.support.structured import Item, parse_list


def test_the_examples_of_the_draft_are_read() -> None:
    assert parse_list('"burst";q=100;w=60,"daily";q=1000;w=86400') == [
        Item("burst", {"q": 100, "w": 60}),
        Item("daily", {"q": 1000, "w": 86400}),
    ]
    assert parse_list('"default";r=50;t=30') == [Item("default", {"r": 50, "t": 30})]
    assert parse_list('"a\\"b\\\\" , tok;x') == [Item('a"b\\', {}), Item("tok", {"x": True})]
    assert parse_list("") == []


@pytest.mark.parametrize("text", ['"a', '"a";', '"a",', '"a" "b"', '"a";Q=1', '"a";q=', '"ä"', "1.5", '"a";q=1x', "=1"])
def test_what_is_malformed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_list(text)
