"""The memory of field lines: bounded, emptied by one call, and without influence on what anything means."""

import pytest

from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1.changing_lines import Changing, cut_key, cut_lines, find_changing, fits_rest
from edgeproxy.edge.http1.fields import FieldKind, FieldRules
from edgeproxy.edge.http1.lines import (
    DROPPED,
    LINE_BYTES_MAX,
    LINES_MAX,
    NAMES_MAX,
    PASSED,
    REQUESTS,
    RESPONSE_LINES,
    RESPONSE_NAMES,
    STATUS_LINES,
    NameCache,
    RequestLines,
    clear_response_caches,
    parse_plain_status,
    parse_response_field,
)
from edgeproxy.edge.http1.request import read_fields


@pytest.fixture(autouse=True)
def without_memories() -> None:
    REQUESTS.clear()
    clear_response_caches()


REMEMBERED = (
    *(
        b"Accept: */*",
        b"Host: a.example",
        b"Content-Length: 3",
        b"Connection: close",
        b"Keep-Alive: 5",
        b"X_Real_IP: 1",
    ),
    *(b"Authorization: Bearer unknown", b"Authorization: Basic dTpw", b"X-API-Key: unknown"),
    *(b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Via: 1.1 a", b"TE: trailers"),
)

NEW_EACH_TIME = (
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    *(b"tracestate: a=b", b"X-Request-Id: 1", b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http"),
    *(b"X-Forwarded-Host: a", b"Forwarded: for=192.0.2.1", b"X-Real-IP: 192.0.2.1", b"X-Customer-Id: acme"),
    b"Proxy-Authorization: Basic dTpw",
)


@pytest.mark.parametrize("line", REMEMBERED)
def test_a_line_that_will_come_again_is_remembered(line: bytes) -> None:
    meaning = REQUESTS.parse_field(line)
    assert line in REQUESTS.passing if meaning is PASSED else REQUESTS.cache[line] is meaning


@pytest.mark.parametrize("line", NEW_EACH_TIME)
def test_a_line_that_is_new_each_time_is_not_remembered(line: bytes) -> None:
    REQUESTS.parse_field(line)
    assert line not in REQUESTS.cache
    assert line not in REQUESTS.passing


def test_an_id_that_an_upstream_makes_is_not_remembered() -> None:
    assert parse_response_field(b"X-Request-Id: 1") is DROPPED
    assert not RESPONSE_LINES


def test_a_flood_of_lines_and_names_has_no_regular_line_read_again() -> None:
    """Lines that pass, lines with a meaning, keys, and names: of requests and of answers."""
    regulars = (b"Accept: */*", b"Host: a.example", b"X-API-Key: ek_1")

    def come() -> None:
        for line in regulars:
            if line not in REQUESTS.passing and REQUESTS.recall(line) is None:
                REQUESTS.parse_field(line)
        parse_response_field(b"Server: a")

    come()
    for number in range(3 * LINES_MAX):
        REQUESTS.parse_field(b"X-%d: 1" % number)
        REQUESTS.parse_field(b"X-API-Key: %d" % number)
        parse_response_field(b"X-%d: 1" % number)
        parse_plain_status(b"HTTP/1.1 200 %d" % number)
        assert b"Accept: */*" in REQUESTS.passing
        assert all(REQUESTS.recall(line) is not None for line in regulars[1:])
        assert b"Accept" in REQUESTS.names
        assert b"Server: a" in RESPONSE_LINES
    come()


def test_a_name_that_was_used_a_generation_ago_is_not_read_again() -> None:
    read: list[bytes] = []

    def classify(name: bytes) -> FieldKind:
        read.append(name)
        return FieldKind.PASS

    names = NameCache(classify)
    for number in range(NAMES_MAX // 2 + 1):
        for _ in range(2):
            assert names[b"%d" % number] is FieldKind.PASS
    assert b"0" not in names, "the name is in the older generation"
    assert (names[b"0"], b"0" in names, read.count(b"0")) == (FieldKind.PASS, True, 1)


def test_every_memory_is_bounded() -> None:
    for number in range(2 * LINES_MAX + 10):
        REQUESTS.parse_field(b"X-%d: 1" % number)
        REQUESTS.parse_field(b"Upgrade: %d" % number)
        assert len(REQUESTS.cache) <= LINES_MAX
        parse_response_field(b"X-%d: 1" % number)
        parse_plain_status(b"HTTP/1.1 200 %d" % number)
        assert max(len(REQUESTS.passing), len(RESPONSE_LINES), len(STATUS_LINES)) <= LINES_MAX
        assert max(len(REQUESTS.names), len(RESPONSE_NAMES)) <= NAMES_MAX


def test_long_lines_names_and_status_lines_are_not_remembered() -> None:
    long = b"x" * LINE_BYTES_MAX
    assert REQUESTS.parse_field(b"A: " + long) is PASSED
    assert parse_response_field(b"A: " + long) is PASSED
    assert REQUESTS.parse_field(long + b"x: a") is PASSED
    assert parse_plain_status(b"HTTP/1.1 200 " + long) == 200
    REQUESTS.parse_field(b"X-API-Key: " + long)
    assert not REQUESTS.cache
    assert not REQUESTS.passing
    assert not RESPONSE_LINES
    assert not STATUS_LINES
    assert set(REQUESTS.names) == {b"A", b"X-API-Key"}


def test_malformed_field_line_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(RejectedError):
            REQUESTS.parse_field(b"Na me: a")
        with pytest.raises(UpstreamError):
            parse_response_field(b"Na me: a")
        with pytest.raises(RejectedError):
            REQUESTS.parse_field(b"Accept")
    REQUESTS.parse_field(b"Accept: a")
    with pytest.raises(RejectedError):  # a name that is known, but no colon
        REQUESTS.parse_field(b"Accept")


STATUS = [
    ("RFC 9112 4", b"HTTP/1.1 200 OK", 200),
    ("RFC 9112 4 empty reason", b"HTTP/1.1 404 ", 404),
    ("RFC 9112 4 no space before an absent reason", b"HTTP/1.1 200", 0),
    ("RFC 9110 15.2 interim", b"HTTP/1.1 100 Continue", 0),
    ("RFC 9112 2.3 HTTP/1.0", b"HTTP/1.0 200 OK", 0),
    ("RFC 9112 4 malformed", b"HTTP/1.1 20 OK", 0),
]


@pytest.mark.parametrize(("rule", "line", "status"), STATUS, ids=[case[0] for case in STATUS])
def test_plain_status_line_parses_to_its_status(rule: str, line: bytes, status: int) -> None:
    assert parse_plain_status(line) == status


# ---- the lines of a header block that change with each request


TRACE = (b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331", b"01")
PARENT = b"traceparent: 00-%b-%b-%b\r\n" % TRACE
LATER = PARENT.replace(b": 00-", b": 01-").replace(b"\r\n", b"-\0\r\n")
USUAL = b"Host: a.example\r\nAccept: */*\r\n"


@pytest.fixture
def request_lines() -> RequestLines:
    """Return the lines of a worker that has read a usual request."""
    lines = RequestLines(FieldRules())
    read_fields(USUAL, request_lines=lines)
    return lines


FOUND: list[tuple[bytes, Changing | None]] = [
    (b"", None),
    (PARENT, (b"\r\ntraceparent:",)),
    (b"Cookie: a=1\r\nX-Seq:2\r\n", (b"", b"\r\nCookie:", b"\r\nX-Seq:")),
    (b"X-Seq: 2\r\n" + PARENT, (b"\r\ntraceparent:", b"\r\nX-Seq:")),
    (b"A: 1\r\nB: 1\r\nC: 1\r\n", (b"", b"\r\nA:", b"\r\nB:", b"\r\nC:")),
    (b"A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n", None),
    (b"X-Seq: 1\r\nx-seq: 2\r\n", None),
    (b"X-Seq: 1\r\nX_Seq: 2\r\n", None),
    (b"X%b: 1\r\n" % (b"x" * 64), None),
    (b"Authorization: Bearer k\r\nX-Customer-Id: me\r\nno colon\r\n", None),
]


@pytest.mark.parametrize(("more", "changing"), FOUND)
def test_lines_that_are_new_and_pass_change(
    request_lines: RequestLines, more: bytes, changing: Changing | None
) -> None:
    assert find_changing(USUAL + more, request_lines, 100) == changing


def test_a_head_that_is_refused_for_its_lines_is_not_looked_at(request_lines: RequestLines) -> None:
    assert find_changing(USUAL + b"X-Seq: 1\r\n", request_lines, 2) is None


def test_cut_lines_returns_the_constant_rest_of_a_block() -> None:
    block = b"\r\nX-Seq: 7\r\nHost: a.example\r\n" + PARENT + b"Accept: */*\r\n"
    cut = cut_lines(block, (b"\r\ntraceparent:", b"\r\nX-Seq:"))
    assert cut == (b"\r\n" + USUAL, b"X-Seq: 7\r\n", TRACE)
    assert cut_lines(block, (b"", b"\r\nX-Seq:")) == (
        b"\r\nHost: a.example\r\n" + PARENT + b"Accept: */*\r\n",
        b"X-Seq: 7\r\n",
        None,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"traceparent: 00-1-2-01\r\n",
        PARENT.replace(b"00-", b"ff-", 1),
        PARENT + b"X-Seq: \0\r\n",
        PARENT,
        LATER + b"X-Seq: 1\r\n",
    ],
)
def test_cut_lines_returns_none_for_a_missing_or_invalid_line(line: bytes) -> None:
    assert cut_lines(b"\r\n" + USUAL + line, (b"\r\ntraceparent:", b"\r\nX-Seq:")) is None


FITS = [
    (USUAL, 6, True),
    (USUAL, 5, False),  # Four more lines may have been cut.
    (USUAL + b"x-seq: 1\r\n", 100, False),
    (USUAL + b"TraceParent: 1\r\n", 100, False),
    (USUAL + b"X-Sequence: 1\r\n", 100, True),
]


@pytest.mark.parametrize(("rest", "most", "fits"), FITS)
def test_no_name_may_be_left_in_the_rest(request_lines: RequestLines, rest: bytes, most: int, fits: bool) -> None:
    changing = (b"\r\ntraceparent:", b"\r\nX-Seq:")
    assert fits_rest(b"\r\n" + rest, changing, request_lines, most) is fits


def test_a_configuration_that_says_otherwise_of_a_name_is_heeded() -> None:
    stripping = RequestLines(FieldRules(strip=("x-seq",)))
    assert not fits_rest(b"\r\n" + USUAL, (b"", b"\r\nX-Seq:"), stripping, 100)


@pytest.mark.parametrize("key", [b"", b" ek_1", b"ek_1 ", b"ek\0_1"])
def test_invalid_line_of_a_key_is_not_cut(key: bytes) -> None:
    assert cut_key(b"\r\nHost: a\r\nX-API-Key: %b\r\n" % key, (b"\r\nX-API-Key: ",)) is None


def test_key_is_cut_out_of_its_line() -> None:
    block = b"\r\nHost: a\r\nX-API-Key: ek_1\r\nAccept: b\r\n"
    cut = cut_key(block, (b"\r\nx-api-key: ", b"\r\nX-API-Key: "))
    assert cut == (b"\r\nHost: a\r\nX-API-Key: \r\nAccept: b\r\n", b"ek_1", 9, 22)
    assert cut_key(b"\r\nHost: a\r\n", (b"\r\nX-API-Key: ",)) is None
