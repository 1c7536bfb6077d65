"""Fields in lines that were read."""

from edgeproxy.edge.http1.field_values import value, values, without

LINES = b"Origin: https://a\r\nVary:  Accept \r\nvary: Origin\r\nX: origin: b\r\n"


def test_a_field_is_found_by_its_name_in_any_case() -> None:
    assert values(LINES, b"vary") == [b"Accept", b"Origin"]
    assert values(LINES, b"origin") == [b"https://a"]
    assert values(LINES, b"y") == values(b"", b"vary") == []


def test_one_value_is_the_only_one() -> None:
    assert value(LINES, b"origin") == b"https://a"
    assert value(LINES, b"vary") is None
    assert value(LINES, b"y") is None


def test_lines_are_taken_out_whole() -> None:
    assert without(LINES, {b"vary", b"origin"}) == b"X: origin: b\r\n"
    assert without(LINES, ()) == LINES
    assert without(b"HTTP/1.1 200 a: b\r\nA: c\r\n", {b"a"}) == b"HTTP/1.1 200 a: b\r\n"
