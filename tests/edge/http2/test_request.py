"""Conversion of heads and trailers to HTTP/1.1: a head without a form there is refused, and never repaired."""

import pytest

from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.http2.errors import ErrorCode, Http2StreamError
from edgeproxy.edge.http2.hpack import HpackDecoder
from edgeproxy.edge.http2.lines import PREFIXES_MAX, _prefixes, format_line
from edgeproxy.edge.http2.request import OVERSIZED_LENGTH, Head, format_head, get_trailers
from tests.edge.http2.peer import GET, GET_HEAD, POST, Fields, block

METHOD, PATH, SCHEME, AUTHORITY = GET
CONNECT: Fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), PATH, SCHEME, AUTHORITY]


def read(fields: Fields, *, ended: bool = True, websockets: bool = False) -> Head:
    return format_head(HpackDecoder(100, 16384).decode(block(fields)), ended=ended, websockets=websockets)


def with_path(path: bytes) -> Fields:
    return [METHOD, (b":path", path), SCHEME, AUTHORITY]


def with_authority(authority: bytes) -> Fields:
    return [METHOD, PATH, SCHEME, (b":authority", authority)]


MALFORMED: list[tuple[str, Fields]] = [
    # section and case, fields
    ("8.2.1 CR LF in a value", [*GET, (b"x", b"a\r\nHost: evil")]),
    ("8.2.1 LF in a value", [*GET, (b"x", b"a\nb")]),
    ("8.2.1 CR in a value", [*GET, (b"x", b"a\rb")]),
    ("8.2.1 NUL in a value", [*GET, (b"x", b"a\0b")]),
    ("8.2.1 a leading space", [*GET, (b"x", b" a")]),
    ("8.2.1 a leading tab", [*GET, (b"x", b"\ta")]),
    ("8.2.1 a trailing space", [*GET, (b"x", b"a ")]),
    ("8.2.1 a trailing tab", [*GET, (b"x", b"a\t")]),
    ("RFC 9110 5.5 a control", [*GET, (b"x", b"a\x01b")]),
    ("RFC 9110 5.5 DEL", [*GET, (b"x", b"a\x7fb")]),
    ("8.2.1 a space in a name", [*GET, (b"x y", b"a")]),
    ("8.2.1 a colon in a name", [*GET, (b"x:y", b"a")]),
    ("8.2.1 CR LF in a name", [*GET, (b"x\r\ny", b"a")]),
    ("8.2.1 an upper-case name", [*GET, (b"X-A", b"a")]),
    ("8.2.1 no name", [*GET, (b"", b"a")]),
    ("8.2.1 a name beyond ASCII", [*GET, (b"x\x80", b"a")]),
    ("8.2.2 transfer-encoding", [*POST, (b"transfer-encoding", b"chunked")]),
    ("8.2.2 connection", [*GET, (b"connection", b"close")]),
    ("8.2.2 keep-alive", [*GET, (b"keep-alive", b"1")]),
    ("8.2.2 upgrade", [*GET, (b"upgrade", b"h2c")]),
    ("8.2.2 proxy-connection", [*GET, (b"proxy-connection", b"x")]),
    ("8.2.2 te: gzip", [*GET, (b"te", b"gzip")]),
    ("8.2.2 te: trailers, deflate", [*GET, (b"te", b"trailers, deflate")]),
    ("8.3 a pseudo-header field behind a field", [METHOD, PATH, SCHEME, (b"x", b"y"), AUTHORITY]),
    ("8.3 one that nobody knows", [*GET, (b":x", b"y")]),
    ("8.3 one of responses", [*GET, (b":status", b"200")]),
    ("8.3 one in upper case", [*GET, (b":Path", b"/")]),
    ("8.3.1 two paths", [*GET, PATH]),
    ("8.3.1 two methods", [METHOD, *GET]),
    ("8.3.1 no method", GET[1:]),
    ("8.3.1 no path", [METHOD, SCHEME, AUTHORITY]),
    ("8.3.1 no scheme", [METHOD, PATH, AUTHORITY]),
    ("8.3.1 nothing", []),
    ("8.3.1 an empty method", [(b":method", b""), *GET[1:]]),
    ("8.3.1 a request line as the method", [(b":method", b"GET /evil HTTP/1.1\r\nx:"), *GET[1:]]),
    ("8.3.1 a scheme with CR LF", [METHOD, PATH, (b":scheme", b"https\r\nx: y"), AUTHORITY]),
    ("8.3.1 an empty path", with_path(b"")),
    ("8.3.1 no slash", with_path(b"a")),
    ("8.3.1 an absolute target", with_path(b"http://evil/")),
    ("8.3.1 * of GET", with_path(b"*")),
    ("8.3.1 a space in the path", with_path(b"/a b")),
    ("8.3.1 a tab in the path", with_path(b"/a\tb")),
    ("8.3.1 a request line in the path", with_path(b"/a HTTP/1.1\r\nx: y")),
    ("8.3.1 CR LF in the authority", with_authority(b"a\r\nx: y")),
    ("8.3.1 user information", with_authority(b"u@a")),
    ("8.3.1 a slash in the authority", with_authority(b"a/b")),
    ("8.3.1 a backslash in the authority", with_authority(b"a\\b")),
    ("8.3.1 a question mark in the authority", with_authority(b"a?b")),
    ("8.3.1 a space in the authority", with_authority(b"a b")),
    ("8.3.1 a list of authorities", with_authority(b"a,b")),
    ("8.3.1 an empty authority", with_authority(b"")),
    ("8.3.1 Host differs", [*GET, (b"host", b"evil")]),
    ("8.3.1 two Hosts", [*GET[:3], (b"host", b"a"), (b"host", b"a")]),
    ("8.5 CONNECT", [(b":method", b"CONNECT"), AUTHORITY]),
    ("8.5 CONNECT with a path", [(b":method", b"CONNECT"), *GET[1:]]),
    ("RFC 8441 4 :protocol without CONNECT", [*GET, (b":protocol", b"websocket")]),
    ("RFC 8441 3 extended CONNECT that was not offered", CONNECT),
    ("8.1.1 a length without a body", [*POST, (b"content-length", b"5")]),
    ("8.1.1 a signed length", [*POST, (b"content-length", b"+0")]),
    ("8.1.1 an empty length", [*POST, (b"content-length", b"")]),
    ("8.1.1 two lengths", [*POST, (b"content-length", b"0"), (b"content-length", b"0")]),
    ("8.1.1 a list of lengths", [*POST, (b"content-length", b"0, 0")]),
    ("8.1.1 a length of 19 digits", [*POST, (b"content-length", b"0" * 19)]),
]


@pytest.mark.parametrize(("case", "fields"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_a_request_that_is_malformed_is_refused(case: str, fields: Fields) -> None:
    with pytest.raises(Http2StreamError) as refusal:
        read(fields)
    assert refusal.value.code is ErrorCode.PROTOCOL_ERROR
    assert refusal.value.section.startswith(("RFC 9113 section 8.", "RFC 8441"))


START = GET_HEAD[:-4]
CHUNKED = b"\r\ntransfer-encoding: chunked\r\n\r\n"
TRANSLATED: list[tuple[str, Fields, bool, bytes, int]] = [
    ("8.3.1", GET, True, GET_HEAD, -1),
    ("8.2.3 crumbs", [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")], True,
     START + b"\r\nx: y\r\ncookie: a=1; b=2\r\n\r\n", -1),
    ("8.2.3 one cookie", [*GET, (b"cookie", b"a=1")], True, START + b"\r\ncookie: a=1\r\n\r\n", -1),
    ("8.3.1 Host is the same", [*GET, (b"host", b"API.example.com"), (b"x", b"y")], True,
     START + b"\r\nx: y\r\n\r\n", -1),
    ("8.3.1 Host alone", [*GET[:3], (b"host", b"api.example.com")], True, GET_HEAD, -1),
    ("8.3.1 neither", GET[:3], True, b"GET /a?b=c HTTP/1.1\r\n\r\n", -1),
    ("8.2.2 te", [*GET, (b"te", b"Trailers")], True, START + b"\r\nte: trailers\r\nconnection: te\r\n\r\n", -1),
    ("RFC 9110 5.5 no value", [*GET, (b"x", b"")], True, START + b"\r\nx: \r\n\r\n", -1),
    ("RFC 9110 5.5 obs-text", [*GET, (b"x", b"a\t\xc3\xbc")], True, START + b"\r\nx: a\t\xc3\xbc\r\n\r\n", -1),
    ("8.1.1 a length", [*POST, (b"content-length", b"5")], False,
     b"POST" + START[3:] + b"\r\ncontent-length: 5\r\n\r\n", 5),
    ("8.1.1 no body", [*POST, (b"content-length", b"0")], True,
     b"POST" + START[3:] + b"\r\ncontent-length: 0\r\n\r\n", 0),
    ("8.1 a body without a length", POST, False, b"POST" + START[3:] + CHUNKED, -1),
    ("8.3.1 OPTIONS *", [(b":method", b"OPTIONS"), (b":path", b"*"), SCHEME, AUTHORITY], True,
     b"OPTIONS * HTTP/1.1\r\nHost: api.example.com\r\n\r\n", -1),
    ("10.5.1 too many fields", [*GET, *[(b"a", b"b")] * 100], True, GET_HEAD, OVERSIZED_LENGTH),
    ("10.5.1 too long ones", [*GET, (b"a", b"b" * 16384)], True, GET_HEAD, OVERSIZED_LENGTH),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "fields", "ended", "head", "length"), TRANSLATED, ids=[case[0] for case in TRANSLATED]
)
def test_a_request_is_said_in_http11(case: str, fields: Fields, ended: bool, head: bytes, length: int) -> None:
    assert read(fields, ended=ended) == (head, length)


def test_extended_connect_is_an_upgrade() -> None:
    head, length = read(CONNECT, ended=False, websockets=True)
    assert head == START + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert length == -1


@pytest.mark.parametrize(
    "fields",
    [
        [CONNECT[0], (b":protocol", b"connect-udp"), *CONNECT[2:]],
        [*CONNECT, (b"content-length", b"0")],
    ],
)
def test_extended_connect_is_for_websockets(fields: Fields) -> None:
    with pytest.raises(Http2StreamError):
        read(fields, ended=False, websockets=True)


def test_extended_connect_needs_a_stream_that_is_open() -> None:
    with pytest.raises(Http2StreamError):
        read(CONNECT, websockets=True)


def trailers(fields: Fields) -> list[bytes] | None:
    return get_trailers(HpackDecoder(100, 16384).decode(block(fields)), HeadLimits(head=16384, fields=100))


def test_forbidden_trailers_are_dropped_and_others_pass() -> None:
    fields = [(b"x-sum", b"1"), (b"content-length", b"5"), (b"host", b"evil"), (b"content_length", b"5"), (b"x-b", b"")]
    assert trailers(fields) == [b"x-sum: 1", b"x-b: "]


@pytest.mark.parametrize(
    "fields",
    [[(b":path", b"/")], [(b"X-Sum", b"1")], [(b"te", b"trailers")], [(b"connection", b"te")]],
)
def test_trailers_that_are_malformed_are_refused(fields: Fields) -> None:
    with pytest.raises(Http2StreamError) as refusal:
        trailers(fields)
    assert refusal.value.section == "RFC 9113 section 8.1"


def test_trailers_are_bounded_as_lines_of_http1_are() -> None:
    for fits, excess in (
        ([(b"a", b"b")] * 100, [(b"a", b"b")] * 101),
        ([(b"a", b"b" * (16384 - 3))], [(b"a", b"b" * (16384 - 2))]),
        ([(b"a", b"b" * 8188)] * 2, [(b"a", b"b" * 8188), (b"a", b"b" * 8189)]),
    ):
        lines = trailers(fits)
        assert lines is not None
        assert len(lines) == len(fits)
        assert trailers(excess) is None


def test_names_are_remembered_up_to_a_bound() -> None:
    for number in range(PREFIXES_MAX + 10):
        assert format_line(b"x-%d" % number, b"") == b"x-%d: " % number
    assert len(_prefixes) <= PREFIXES_MAX
    assert format_line(b"x" * 65, b"y") == b"x" * 65 + b": y"
    assert b"x" * 65 not in _prefixes
