"""Reading a response's head: its meaning, and the lines that the edge forwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1 import lines
from edgeproxy.edge.http1.response import NOT_PLAIN, ResponseHead, check_unfinished, read_plain_response, read_response
from edgeproxy.edge.http1.security_fields import (
    ALL,
    FRAMED,
    FRAMED_BY_NONE,
    NAMES_PLACES,
    SET_AUDITOR,
    SET_HSTS,
    SET_POLICY,
    SET_SNIFFING,
)
from tests.edge.http1.corpus import RESPONSES

OK = "HTTP/1.1 200 OK"


def block(*some: str) -> bytes:
    """Return a head of these lines, without its blank line."""
    return "".join(f"{line}\r\n" for line in some).encode("latin-1")


PLAIN = [
    # section, lines, status, length, forwarded lines
    ("RFC 9112 6.2", [OK, "Content-Length: 3", "A: b"], 200, 3, [OK, "Content-Length: 3", "A: b"]),
    ("RFC 9112 6.2 nothing", [OK, "content-length: 0"], 200, 0, [OK, "Content-Length: 0"]),
    ("RFC 9110 8.6 leading zeros", [OK, "Content-Length: 03"], 200, 3, [OK, "Content-Length: 3"]),
    ("RFC 9112 4 no reason", ["HTTP/1.1 500 ", "Content-Length: 0"], 500, 0, ["HTTP/1.1 500 ", "Content-Length: 0"]),
    (
        "RFC 9110 15 above 599",
        ["HTTP/1.1 999 No", "Content-Length: 0"],
        999,
        0,
        ["HTTP/1.1 999 No", "Content-Length: 0"],
    ),
    ("RFC 9110 15.3.5", ["HTTP/1.1 204 No Content", "A: b"], 204, 0, ["HTTP/1.1 204 No Content", "A: b"]),
    ("RFC 9110 15.4.5", ["HTTP/1.1 304 Not Modified", "ETag: a"], 304, 0, ["HTTP/1.1 304 Not Modified", "ETag: a"]),
    (
        "RFC 9112 6.3 the length of another answer",
        ["HTTP/1.1 304 Not Modified", "Content-Length: 3"],
        304,
        0,
        ["HTTP/1.1 304 Not Modified", "Content-Length: 3"],
    ),
    (
        "RFC 9110 7.6.1",
        [OK, "Connection: Keep-Alive", "Keep-Alive: timeout=5", "Proxy-Connection: a", "TE: a", "Content-Length: 0"],
        200,
        0,
        [OK, "Content-Length: 0"],
    ),
    (
        "RFC 9110 7.6.1 others",
        [OK, "Trailer: A", "Proxy-Authenticate: Basic", "Proxy-Authentication-Info: a", "Content-Length: 0"],
        200,
        0,
        [OK, "Content-Length: 0"],
    ),
    (
        "docs/design/contract.md#stamps",
        [OK, "X-Request-Id: theirs", "Content-Length: 0"],
        200,
        0,
        [OK, "Content-Length: 0"],
    ),
    (
        "RFC 9110 5.3 order",
        [OK, "Set-Cookie: a", "Content-Length: 0", "Set-Cookie: b"],
        200,
        0,
        [OK, "Set-Cookie: a", "Content-Length: 0", "Set-Cookie: b"],
    ),
]


@pytest.mark.parametrize(("rule", "head", "status", "length", "kept"), PLAIN, ids=[case[0] for case in PLAIN])
def test_both_readers_read_a_plain_head(rule: str, head: list[str], status: int, length: int, kept: list[str]) -> None:
    said = ALL if status == 304 else 0
    if "Set-Cookie: a" in head:
        said |= NAMES_PLACES
    assert read_plain_response(block(*head)) == (status, length, block(*kept), b"", said, False)
    careful = read_response(block(*head))
    assert (careful.status, careful.keep, careful.rate, careful.flags) == (status, block(*kept), b"", said)
    assert careful.bodiless == (status in (204, 304))
    assert careful.bodiless or careful.length == length
    assert (careful.minor, careful.chunked, careful.close, careful.upgrade) == (1, False, False, None)


RATE = ["RateLimit-Policy: a", "RateLimit: b", "RateLimit-Limit: c", "RateLimit-Remaining: d", "RateLimit-Reset: e"]


def test_rate_limit_lines_of_the_upstream_are_separated() -> None:
    head = block(OK, RATE[0], "X-RateLimit-Limit: 1", *RATE[1:], "Content-Length: 0")
    kept = block(OK, "X-RateLimit-Limit: 1", "Content-Length: 0")
    assert read_plain_response(head) == (200, 0, kept, block(*RATE), 0, False)
    assert (read_response(head).keep, read_response(head).rate) == (kept, block(*RATE))


SAID = [
    (["x-content-type-options: nosniff"], SET_SNIFFING),
    (["Content-Security-Policy: default-src 'self'", "Strict-Transport-Security : max-age=0"], SET_POLICY | SET_HSTS),
    (["X-Frame-Options: DENY"], FRAMED_BY_NONE),
    (["LOCATION : /a", "X-Content-Type-Options: nosniff"], NAMES_PLACES | SET_SNIFFING),
    (["content-location: /a"], NAMES_PLACES),
    (["Refresh: 5; url=/a"], NAMES_PLACES),
    (["Locations: /a"], 0),
    (["X-Frame-Options: SameOrigin", "X-Frame-Options: DENY"], FRAMED),
    (["Content-Security-Policy-Report-Only: default-src 'self'", "X-Content-Type: nosniff"], 0),
]


@pytest.mark.parametrize(("head", "said"), SAID)
def test_security_fields_are_forwarded_and_flagged(head: list[str], said: int) -> None:
    kept = block(OK, *(line.replace(" :", ":") for line in head), "Content-Length: 0")
    assert read_plain_response(block(OK, *head, "Content-Length: 0")) == (200, 0, kept, b"", said, False)
    careful = read_response(block(OK, *head, "Content-Length: 0"))
    assert (careful.keep, careful.flags) == (kept, said)


def test_security_fields_named_in_connection_are_not_flagged() -> None:
    """RFC 9110 section 7.6.1."""
    lines = ["X-Frame-Options: DENY", "X-XSS-Protection: 1", "Content-Length: 0"]
    careful = read_response(block(OK, "Connection: x-frame-options", *lines))
    assert (careful.keep, careful.flags) == (block(OK, *lines[1:]), SET_AUDITOR)


@pytest.mark.parametrize("line", ["Date: a", "date: a", "DATE:", "Date:a", "Date : a"])
def test_a_date_is_forwarded_and_flagged(line: str) -> None:
    kept = block(OK, "A: b", line.replace(" :", ":"), "Content-Length: 0")
    assert read_plain_response(block(OK, "A: b", line, "Content-Length: 0")) == (200, 0, kept, b"", 0, True)
    careful = read_response(block(OK, "A: b", line, "Content-Length: 0"))
    assert (careful.keep, careful.dated) == (kept, True)


@pytest.mark.parametrize("line", ["X-Date: a", "Dates: a", "A: Date: b", "Da_te: a"])
def test_fields_similar_to_date_are_not_flagged(line: str) -> None:
    assert not read_plain_response(block(OK, line, "Content-Length: 0"))[5]
    assert not read_response(block(OK, line, "Content-Length: 0")).dated


CAREFUL = [
    # section, lines, attributes, forwarded lines
    ("RFC 9112 7.1", [OK, "Transfer-Encoding: Chunked"], {"chunked": True}, [OK]),
    ("RFC 9112 6.3 until close", [OK, "A: b"], {}, [OK, "A: b"]),
    (
        "RFC 9112 9.6",
        [OK, "Connection: close", "Content-Length: 3"],
        {"length": 3, "close": True},
        [OK, "Content-Length: 3"],
    ),
    (
        "RFC 9112 9.3 HTTP/1.0",
        ["HTTP/1.0 200 OK", "Content-Length: 3"],
        {"length": 3, "close": True, "minor": 0},
        [OK, "Content-Length: 3"],
    ),
    (
        "RFC 9112 9.3 HTTP/1.0, kept",
        ["HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 3"],
        {"length": 3, "minor": 0},
        [OK, "Content-Length: 3"],
    ),
    (
        "RFC 9112 4 no space",
        ["HTTP/1.1 200", "Content-Length: 3"],
        {"length": 3},
        ["HTTP/1.1 200 ", "Content-Length: 3"],
    ),
    (
        "RFC 9110 7.6.1 names fields",
        [OK, "Connection: a, content-length, ratelimit", "A: b", "C: d", "RateLimit: e", "Content-Length: 3"],
        {"length": 3},
        [OK, "C: d", "Content-Length: 3"],
    ),
    (
        "RFC 9112 5.1 whitespace before the colon",
        [OK, "A : b", "Content-Length \t: 3", "Connection : close"],
        {"length": 3, "close": True},
        [OK, "A: b", "Content-Length: 3"],
    ),
    (
        "RFC 9110 15.2.1",
        ["HTTP/1.1 100 Continue", "A: b"],
        {"status": 100, "bodiless": True},
        ["HTTP/1.1 100 Continue", "A: b"],
    ),
    (
        "RFC 9110 15.2.2",
        ["HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Accept: a"],
        {"status": 101, "bodiless": True, "upgrade": b"websocket"},
        ["HTTP/1.1 101 Switching Protocols", "Sec-WebSocket-Accept: a"],
    ),
    (
        "RFC 9110 7.8",
        [
            "HTTP/1.1 426 Upgrade Required",
            "Upgrade: TLS/1.0",
            "Upgrade: A/3",
            "Connection: upgrade",
            "Content-Length: 0",
        ],
        {"status": 426, "length": 0, "upgrade": b"tls/1.0, a/3"},
        ["HTTP/1.1 426 Upgrade Required", "Content-Length: 0"],
    ),
    (
        "RFC 9110 7.8 names no protocol",
        ["HTTP/1.1 101 Switching Protocols", "Upgrade:", "Upgrade:", "Connection: upgrade"],
        {"status": 101, "bodiless": True},
        ["HTTP/1.1 101 Switching Protocols"],
    ),
    (
        "RFC 9110 7.8 not named in Connection",
        ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket"],
        {"status": 101, "bodiless": True, "upgrade": b"websocket"},
        ["HTTP/1.1 101 Switching Protocols"],
    ),
    (
        "RFC 9110 8.6 not in 204",
        ["HTTP/1.1 204 No Content", "Content-Length: 0"],
        {"status": 204, "bodiless": True},
        ["HTTP/1.1 204 No Content"],
    ),
    (
        "RFC 9110 8.6 a length in 204",
        ["HTTP/1.1 204 No Content", "Content-Length: 3"],
        {"status": 204, "bodiless": True, "close": True},
        ["HTTP/1.1 204 No Content"],
    ),
    (
        "RFC 9112 6.1 a coding in 204",
        ["HTTP/1.1 204 No Content", "Transfer-Encoding: chunked"],
        {"status": 204, "bodiless": True, "close": True},
        ["HTTP/1.1 204 No Content"],
    ),
    (
        "RFC 9112 6.1 a coding in 304",
        ["HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked"],
        {"status": 304, "bodiless": True, "chunked": True},
        ["HTTP/1.1 304 Not Modified"],
    ),
]


@pytest.mark.parametrize(("rule", "head", "said", "kept"), CAREFUL, ids=[case[0] for case in CAREFUL])
def test_the_quick_reader_leaves_unusual_heads_to_the_full_reader(
    rule: str, head: list[str], said: dict[str, object], kept: list[str]
) -> None:
    assert read_plain_response(block(*head)) == NOT_PLAIN
    careful = read_response(block(*head))
    usual = {"status": 200, "minor": 1, "length": -1, "chunked": False, "close": False, "bodiless": False}
    usual |= {"upgrade": None, "rate": b"", "flags": ALL if said.get("status") == 304 else 0}
    assert {name: getattr(careful, name) for name in usual} == usual | said
    assert careful.keep == block(*kept)


FAULTS = [
    ("RFC 9112 4 no version", ["200 OK"]),
    ("RFC 9112 4 two spaces", ["HTTP/1.1  200 OK"]),
    ("RFC 9112 4 a tab", ["HTTP/1.1\t200 OK"]),
    ("RFC 9112 4 two digits", ["HTTP/1.1 20 OK"]),
    ("RFC 9112 4 four digits", ["HTTP/1.1 2000 OK"]),
    ("RFC 9110 15 below 100", ["HTTP/1.1 099 OK"]),
    ("RFC 9112 4 control character", ["HTTP/1.1 200 O\x01K"]),
    ("RFC 9112 2.3 case", ["http/1.1 200 OK"]),
    ("RFC 9112 2.3 another version", ["HTTP/2.0 200 OK"]),
    ("RFC 9112 2.3 another protocol", ["ICE/1.0 200 OK"]),
    ("RFC 9112 5.1 no colon", [OK, "A"]),
    ("RFC 9112 5.1 no name", [OK, ": a"]),
    ("RFC 9112 5.1 nothing but whitespace for a name", [OK, " : a"]),
    ("RFC 9112 5.2 folded", [OK, "A: b", " c: d"]),
    ("RFC 9110 5.5 NUL", [OK, "A: \0"]),
    ("RFC 9110 5.5 bare CR", [OK, "A: \rb"]),
    ("RFC 9112 6.3 malformed length", [OK, "Content-Length: a"]),
    ("RFC 9112 6.3 length with a sign", [OK, "Content-Length: +1"]),
    ("RFC 9112 6.3 length is a list", [OK, "Content-Length: 1, 1"]),
    ("RFC 9112 6.3 repeated length", [OK, "Content-Length: 1", "Content-Length: 1"]),
    ("RFC 9112 6.3 both", [OK, "Content-Length: 1", "Transfer-Encoding: chunked"]),
    ("RFC 9112 6.1 unknown coding", [OK, "Transfer-Encoding: gzip"]),
    ("RFC 9112 6.1 two codings", [OK, "Transfer-Encoding: gzip, chunked"]),
    ("RFC 9112 6.1 repeated coding", [OK, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
    ("RFC 9112 6.1 HTTP/1.0", ["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"]),
]


@pytest.mark.parametrize(("rule", "head"), FAULTS, ids=[case[0] for case in FAULTS])
def test_a_head_that_is_malformed_or_ambiguous_is_a_fault(rule: str, head: list[str]) -> None:
    with pytest.raises(UpstreamError) as fault:
        read_response(block(*head))
    assert (fault.value.error, fault.value.status) == ("http_protocol_error", 502)
    assert plainly(block(*head)) in (NOT_PLAIN, "fault")


LINES = sorted({line for head in RESPONSES for line in head.split(b"\r\n")[1:-1]})
FIRST = sorted({head.split(b"\r\n")[0] for head in RESPONSES} | {b"HTTP/1.1 200 OK", b"HTTP/2.0 200 OK"})
HEADS = st.tuples(st.sampled_from(FIRST), st.lists(st.sampled_from(LINES), max_size=8)).map(
    lambda parts: b"".join(line + b"\r\n" for line in (parts[0], *parts[1]))
)


def plainly(head: bytes) -> tuple[int, int, bytes, bytes, int, bool] | str:
    """Read a head with the quick reader. Return its result, or "fault"."""
    try:
        return read_plain_response(head)
    except UpstreamError:
        return "fault"


def carefully(head: bytes) -> ResponseHead | None:
    """Read a head with the full reader, which knows every rule. Return None for a fault."""
    try:
        return read_response(head)
    except UpstreamError:
        return None


@given(HEADS)
def test_fast_and_full_response_readers_agree(head: bytes) -> None:
    plain = plainly(head)
    careful = carefully(head)
    if plain == "fault":
        assert careful is None
    elif plain != NOT_PLAIN:
        assert careful is not None
        following = 0 if careful.bodiless else careful.length
        assert plain == (careful.status, following, careful.keep, careful.rate, careful.flags, careful.dated)
        assert (careful.minor, careful.chunked, careful.close, careful.upgrade) == (1, False, False, None)


@given(HEADS, st.integers(0, 400))
def test_no_prefix_of_a_valid_head_is_refused(head: bytes, end: int) -> None:
    if carefully(head) is not None:
        check_unfinished((head + b"\r\n")[:end])


@pytest.mark.parametrize("begun", [b"\r\n", b"220 ready\r\n", b"http/1.1 200", b"HTTP/2", b"HTTP/1.1 200 OK\nA: b\n\n"])
def test_an_invalid_beginning_is_refused_before_the_end_of_the_head(begun: bytes) -> None:
    with pytest.raises(UpstreamError, match=r"status line|carriage return"):
        check_unfinished(begun)


@given(st.lists(HEADS, min_size=1, max_size=5))
def test_reading_a_head_does_not_depend_on_heads_read_before(heads: list[bytes]) -> None:
    def outcome(head: bytes) -> object:
        careful = carefully(head)
        return plainly(head), careful and vars(careful)

    def fresh(head: bytes) -> object:
        lines.clear_response_caches()
        return outcome(head)

    meant = {head: fresh(head) for head in heads}
    lines.clear_response_caches()
    for head in (*heads, *reversed(heads)):
        assert outcome(head) == meant[head]


@given(HEADS)
def test_a_forwarded_head_is_read_equally_again(head: bytes) -> None:
    careful = carefully(head)
    if careful is not None:
        again = read_response(careful.keep)
        assert (again.status, again.length, again.minor) == (careful.status, careful.length, 1)
        assert again.keep == careful.keep
        assert (again.chunked, again.close, again.upgrade, again.rate) == (False, False, None, b"")
