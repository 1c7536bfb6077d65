"""Fields in lines that were read."""

import pytest

from edgeproxy.edge.http1.field_values import find_value, find_values, remove_field, remove_fields

LINES = b"Origin: https://a\r\nVary:  Accept \r\nvary: Origin\r\nX: origin: b\r\n"


def test_field_lookup_ignores_case() -> None:
    assert find_values(LINES, b"vary") == [b"Accept", b"Origin"]
    assert find_values(LINES, b"origin") == [b"https://a"]
    assert find_values(LINES, b"y") == find_values(b"", b"vary") == []


def test_find_value_returns_only_a_single_value() -> None:
    assert find_value(LINES, b"origin") == b"https://a"
    assert find_value(LINES, b"vary") is None
    assert find_value(LINES, b"y") is None


def test_lines_are_taken_out_whole() -> None:
    assert remove_fields(LINES, {b"vary", b"origin"}) == b"X: origin: b\r\n"
    assert remove_fields(LINES, ()) == LINES
    assert remove_fields(b"HTTP/1.1 200 a: b\r\nA: c\r\n", {b"a"}) == b"HTTP/1.1 200 a: b\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Vary: a\r\n",
        b"vary: a\r\nVARY: b\r\nOrigin: vary: c\r\nVary: d\r\nVary:\r\n",
        b"X-Vary: a\r\nVary-X: b\r\nVary: c\r\n",
    ],
)
def test_remove_field_equals_remove_fields_of_one_name(lines: bytes) -> None:
    assert remove_field(lines, b"vary") == remove_fields(lines, (b"vary",))
