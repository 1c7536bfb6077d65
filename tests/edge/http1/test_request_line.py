"""The request line, and heads that are not whole yet."""

import pytest

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.grammar import METHODS, HeadLimits
from edgeproxy.edge.http1.request_line import RequestLine, check_sizes, check_unfinished, read_request_line

READ = [
    # section, line, result
    ("RFC 9112 3.2.1", b"GET / HTTP/1.1", RequestLine(b"GET", b"/", (1, 1))),
    ("RFC 9112 3.2.1 query", b"GET /a?b=c?d HTTP/1.0", RequestLine(b"GET", b"/a?b=c?d", (1, 0))),
    ("RFC 3986 3.3 two slashes", b"GET //a HTTP/1.1", RequestLine(b"GET", b"//a", (1, 1))),
    ("WHATWG URL 1.3 raw in a path", b"GET /a|b^[]{}` HTTP/1.1", RequestLine(b"GET", b"/a|b^[]{}`", (1, 1))),
    ("WHATWG URL 1.3 backslash in a query", rb"GET /?p=C:\x HTTP/1.1", RequestLine(b"GET", rb"/?p=C:\x", (1, 1))),
    (
        "WHATWG URL 1.3 escaped in a query",
        b'GET /?{"a":<1>} HTTP/1.1',
        RequestLine(b"GET", b"/?{%22a%22:%3C1%3E}", (1, 1)),
    ),
    ("RFC 9112 3.2.4", b"OPTIONS * HTTP/1.1", RequestLine(b"OPTIONS", b"*", (1, 1))),
    (
        "RFC 9112 3.2.2",
        b"GET http://a.example:80/b?c HTTP/1.1",
        RequestLine(b"GET", b"/b?c", (1, 1), b"a.example:80", b"http"),
    ),
    ("RFC 9112 3.2.2 no path", b"GET HTTPS://a HTTP/1.1", RequestLine(b"GET", b"/", (1, 1), b"a", b"https")),
    ("RFC 9112 3.2.2 query only", b"GET http://a?b HTTP/1.1", RequestLine(b"GET", b"/?b", (1, 1), b"a", b"http")),
    ("RFC 9112 3.2.4 absolute", b"OPTIONS http://a HTTP/1.1", RequestLine(b"OPTIONS", b"*", (1, 1), b"a", b"http")),
    (
        "RFC 9112 3.2.4 absolute with a path",
        b"OPTIONS http://a/ HTTP/1.1",
        RequestLine(b"OPTIONS", b"/", (1, 1), b"a", b"http"),
    ),
]


@pytest.mark.parametrize(("rule", "line", "meaning"), READ, ids=[case[0] for case in READ])
def test_a_request_line_is_read(rule: str, line: bytes, meaning: RequestLine) -> None:
    assert read_request_line(line) == meaning


@pytest.mark.parametrize("method", [*sorted(METHODS), b"BREW", b"brew", b"M-SEARCH", b"G!#$%&'*+-.^_`|~ET"])
def test_every_method_that_is_forwarded_is_read(method: bytes) -> None:
    assert read_request_line(method + b" / HTTP/1.1").method == method


REFUSED = [
    ("RFC 9112 3 nothing", b"", 400),
    ("RFC 9112 3 HTTP/0.9", b"GET /", 400),
    ("RFC 9112 3 two spaces", b"GET  / HTTP/1.1", 400),
    ("RFC 9112 3 two spaces before the version", b"GET /  HTTP/1.1", 400),
    ("RFC 9112 3 a tab", b"GET\t/ HTTP/1.1", 400),
    ("RFC 9112 3 space at the end", b"GET / HTTP/1.1 ", 400),
    ("RFC 9112 3 space at the beginning", b" GET / HTTP/1.1", 400),
    ("RFC 9112 3.1 no method", b" / HTTP/1.1", 400),
    ("RFC 9112 3.1 not a token", b"GE(T / HTTP/1.1", 400),
    ("RFC 9112 3.1 case", b"get / HTTP/1.1", 501),
    ("RFC 9110 9.1 case of WebDAV", b"PropFind / HTTP/1.1", 501),
    ("RFC 9110 18.2 reserved", b"* / HTTP/1.1", 501),
    ("RFC 9113 3.4 reserved", b"PRI / HTTP/1.1", 501),
    ("RFC 9110 9.3.8 case", b"trace / HTTP/1.1", 501),
    ("RFC 9110 9.3.6", b"CONNECT example.com:443 HTTP/1.1", 501),
    ("RFC 9110 9.3.8", b"TRACE / HTTP/1.1", 501),
    ("RFC 9112 3.2 no target", b"GET  HTTP/1.1", 400),
    ("RFC 9112 3.2 fragment", b"GET /a#b HTTP/1.1", 400),
    ("RFC 9112 3.2 fragment in a query", b"GET /a?b#c HTTP/1.1", 400),
    ("RFC 3986 2 not ASCII", b"GET /\xe9 HTTP/1.1", 400),
    ("RFC 3986 2 not ASCII in a query", b"GET /?\xe9 HTTP/1.1", 400),
    ("RFC 3986 2 control character", b"GET /\x01 HTTP/1.1", 400),
    ("RFC 3986 2 backslash in a path", rb"GET /a\b HTTP/1.1", 400),
    ("RFC 3986 2 a quote before a query", b'GET /"a"?b HTTP/1.1', 400),
    ("RFC 3986 2 not ASCII beside a quote in a query", b'GET /?"\xe9" HTTP/1.1', 400),
    ("RFC 3986 2 angle bracket", b"GET /<script> HTTP/1.1", 400),
    ("RFC 9112 3.2 authority-form", b"GET example.com:80 HTTP/1.1", 400),
    ("RFC 9112 3.2 no slash", b"GET index.html HTTP/1.1", 400),
    ("RFC 9112 3.2.4 not OPTIONS", b"GET * HTTP/1.1", 400),
    ("RFC 9112 3.2.4 more than a star", b"OPTIONS *? HTTP/1.1", 400),
    ("RFC 9112 3.2.2 another scheme", b"GET ftp://a/ HTTP/1.1", 400),
    ("RFC 9110 4.2.1 no host", b"GET http:///a HTTP/1.1", 400),
    ("RFC 9110 4.2.4 user information", b"GET http://u:p@a/ HTTP/1.1", 400),
    ("RFC 9112 2.3 case", b"GET / http/1.1", 400),
    ("RFC 9112 2.3 two digits", b"GET / HTTP/1.10", 400),
    ("RFC 9112 2.3 no minor", b"GET / HTTP/2", 400),
    ("RFC 9112 2.3 another protocol", b"GET / ICE/1.0", 400),
    ("RFC 9110 15.6.6 later", b"GET / HTTP/1.2", 505),
    ("RFC 9110 15.6.6 much later", b"PRI * HTTP/2.0", 505),
    ("RFC 9110 15.6.6 earlier", b"GET / HTTP/0.9", 505),
]


@pytest.mark.parametrize(("rule", "line", "status"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_request_line_is_refused(rule: str, line: bytes, status: int) -> None:
    with pytest.raises(RejectedError) as refusal:
        read_request_line(line)
    assert refusal.value.status == status
    assert refusal.value.close


LIMITS = HeadLimits(head=50)

SIZES = [
    ("RFC 9112 3 line", 20, 50, None),
    ("RFC 9112 3 a line that is all of the head", 50, 50, None),
    ("RFC 6585 5 head too long", 50, 51, 431),
    ("RFC 9112 3 line too long", 51, 51, 414),
]


@pytest.mark.parametrize(("rule", "line", "head", "status"), SIZES, ids=[case[0] for case in SIZES])
def test_sizes_are_limited(rule: str, line: int, head: int, status: int | None) -> None:
    if status is None:
        check_sizes(line, head, LIMITS)
        return
    with pytest.raises(RejectedError) as refusal:
        check_sizes(line, head, LIMITS)
    assert refusal.value.status == status


UNFINISHED = [
    ("nothing yet", b"", None),
    ("half a method", b"GE", None),
    ("a line without its LF", b"GET / HTTP/1.1\r", None),
    ("a line", b"GET / HTTP/1.1\r\n", None),
    ("a line and half a field", b"GET / HTTP/1.1\r\nHost: a\r", None),
    ("RFC 9112 2.2 bare LF", b"GET / HTTP/1.1\n", 400),
    ("RFC 9112 2.2 bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\n", 400),
    ("RFC 9112 2.2 bare CR", b"GET / HTTP/1.1\r\nHost: \ra", 400),
    ("RFC 9112 2.2 two CR", b"GET / HTTP/1.1\r\r", 400),
    ("RFC 9110 5.5 NUL, as in a TLS handshake", b"\x16\x03\x01\0\x05", 400),
    ("RFC 9112 3 a malformed line", b"GET /\r\n", 400),
    ("RFC 9110 15.6.6 HTTP/2", b"PRI * HTTP/2.0\r\n", 505),
    ("RFC 9112 3 a line that does not end", b"GET /" + b"a" * 46, 414),
    ("RFC 9112 3 a line that ends too late", b"GET /" + b"a" * 37 + b" HTTP/1.1\r\n", 414),
    ("RFC 6585 5 a head that does not end", b"GET / HTTP/1.1\r\n" + b"a" * 35, 431),
]


@pytest.mark.parametrize(("rule", "data", "status"), UNFINISHED, ids=[case[0] for case in UNFINISHED])
def test_unfinished_head_is_refused_once_it_cannot_become_valid(rule: str, data: bytes, status: int | None) -> None:
    if status is None:
        check_unfinished(data, LIMITS)
        return
    with pytest.raises(RejectedError) as refusal:
        check_unfinished(data, LIMITS)
    assert refusal.value.status == status
