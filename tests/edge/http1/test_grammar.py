"""The shapes that the readers share."""

import pytest

from edgeproxy.edge.http1 import grammar

HOSTS = [
    # section, authority, what routing looks at
    ("RFC 9110 7.2", b"example.com", b"example.com"),
    ("RFC 9110 7.2 port", b"example.com:8080", b"example.com"),
    ("RFC 3986 3.2.3 empty port", b"example.com:", b"example.com"),
    ("RFC 9110 4.2.3 case", b"EXAMPLE.Com", b"example.com"),
    ("RFC 3986 3.2.2 trailing dot", b"example.com.:80", b"example.com"),
    ("RFC 3986 3.2.2 IPv4", b"127.0.0.1:80", b"127.0.0.1"),
    ("RFC 3986 3.2.2 IPv6", b"[2001:DB8::1]:443", b"[2001:db8::1]"),
    ("RFC 3986 3.2.2 not IPv6", b"[:::1]", None),
    ("RFC 3986 3.2.2 a name in brackets", b"[example.com]", None),
    ("RFC 6874 zone", b"[fe80::1%25eth0]", None),
    ("RFC 9110 4.2.1 empty", b"", None),
    ("RFC 9110 4.2.1 nothing but a port", b":80", None),
    ("RFC 3986 3.2.2 nothing but a dot", b".", None),
    ("RFC 9110 4.2.4 user information", b"user@example.com", None),
    ("RFC 3986 3.2.2 percent-encoding", b"ex%61mple.com", None),
    ("RFC 3986 3.2.3 port too large", b"example.com:65536", None),
    ("RFC 3986 3.2.3 port not a number", b"example.com:8o", None),
    ("RFC 3986 2.3 all that is unreserved", b"a_~b-1.C", b"a_~b-1.c"),
    ("RFC 3986 3.2.2 two names", b"a b", None),
    ("RFC 3986 3.2.2 a list to some", b"a.example,b.example", None),
    *((f"RFC 3986 3.2.2 {chr(char)}", b"a%cb.example" % char, None) for char in b"!$&'()*+;="),
    ("RFC 1034 3.1 an empty label", b"a..example", None),
    ("RFC 1034 3.1 an empty first label", b".example", None),
    ("RFC 1034 3.1 two dots at the end", b"example..", None),
    ("RFC 3986 3.2.2 a path", b"example.com/x", None),
    ("RFC 3986 3.2.2 not ASCII", b"ex\xe4mple.com", None),
]


@pytest.mark.parametrize(("rule", "authority", "host"), HOSTS, ids=[case[0] for case in HOSTS])
def test_the_host_that_routing_looks_at(rule: str, authority: bytes, host: bytes | None) -> None:
    assert grammar.parse_host(authority) == host


LINES = [
    ("RFC 9112 5.1", b"Name: value", (b"name", b"value")),
    ("RFC 9112 5.1 optional whitespace", b"Name:\t value \t", (b"name", b"value")),
    ("RFC 9110 5.5 whitespace inside", b"Name:a \tb", (b"name", b"a \tb")),
    ("RFC 9110 5.5 empty", b"Name:", (b"name", b"")),
    ("RFC 9110 5.5 obs-text", b"Name: \xe9", (b"name", b"\xe9")),
    ("RFC 9110 5.6.2 every tchar", grammar.TOKEN + b":", (grammar.TOKEN.lower(), b"")),
    ("RFC 9112 5.1 no colon", b"Name", None),
    ("RFC 9112 5.1 no name", b": value", None),
    ("RFC 9112 5.1 space before the colon", b"Name : value", None),
    ("RFC 9112 5.2 folded", b" more", None),
    ("RFC 9112 5.2 folded, with a colon", b"\tname: value", None),
    ("RFC 9110 5.6.2 not a token", b"Na(me: value", None),
    ("RFC 9110 5.5 NUL", b"Name: a\0b", None),
    ("RFC 9110 5.5 bare CR", b"Name: a\rb", None),
    ("RFC 9110 5.5 bare LF", b"Name: a\nb", None),
    ("RFC 9110 5.5 DEL", b"Name: a\x7fb", None),
]


@pytest.mark.parametrize(("rule", "line", "split"), LINES, ids=[case[0] for case in LINES])
def test_a_field_line_is_a_token_a_colon_and_a_clean_value(
    rule: str, line: bytes, split: tuple[bytes, bytes] | None
) -> None:
    assert grammar.parse_field_line(line) == split


def test_a_list_is_read_in_lower_case_and_without_its_empty_members() -> None:
    """RFC 9110 section 5.6.1.2."""
    assert grammar.parse_list(b", Close ,\t,keep-alive,,") == [b"close", b"keep-alive"]
    assert grammar.parse_list(b"") == []


PARENT = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
TRACE_ID, PARENT_ID = PARENT[:32], PARENT[33:49]
LATER = [
    # W3C Trace Context section, traceparent, result
    ("3.2.2.5 unknown flags", b"00-" + PARENT + b"ff", (TRACE_ID, PARENT_ID, b"03")),
    ("3.2.4 a later version", b"cc-" + PARENT + b"01", (TRACE_ID, PARENT_ID, b"01")),
    ("3.2.4 a later version with more", b"01-" + PARENT + b"09-what-the-future-holds", (TRACE_ID, PARENT_ID, b"01")),
    ("3.2.2.2 more in version 00", b"00-" + PARENT + b"01-more", None),
    ("3.2.2.1 version ff", b"ff-" + PARENT + b"01", None),
    ("3.2.2.3 no trace-id", b"cc-" + b"0" * 32 + PARENT[32:] + b"01", None),
    ("3.2.2.4 no parent-id", b"cc-" + TRACE_ID + b"-" + b"0" * 16 + b"-01", None),
    ("3.2.2 upper case", b"cc-" + PARENT.upper() + b"01", None),
    ("3.2.4 more without a dash", b"cc-" + PARENT + b"01x", None),
    ("3.2.2 garbage", b"hello", None),
]


@pytest.mark.parametrize(("rule", "value", "trace"), LATER, ids=[case[0] for case in LATER])
def test_traceparent_of_a_later_version_is_continued(
    rule: str, value: bytes, trace: grammar.TraceParent | None
) -> None:
    assert grammar.parse_traceparent(value) == trace
