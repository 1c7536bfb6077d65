"""The memory of field lines: bounded, emptied by one call, and without influence on what anything means."""

import pytest

from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1.fields import FieldKind
from edgeproxy.edge.http1.lines import (
    DROPPED,
    LINE_LONGEST,
    LINES_MOST,
    NAMES_MOST,
    PASSED,
    PINNED_MOST,
    REQUESTS,
    RESPONSE_LINES,
    RESPONSE_NAMES,
    STATUS_LINES,
    forget,
    plain_status,
    response_field,
)


@pytest.fixture(autouse=True)
def without_memories() -> None:
    REQUESTS.forget()
    forget()


REMEMBERED = (
    *(
        b"Accept: */*",
        b"Host: a.example",
        b"Content-Length: 3",
        b"Connection: close",
        b"Keep-Alive: 5",
        b"X_Real_IP: 1",
    ),
    *(b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Via: 1.1 a", b"TE: trailers"),
)

NEW_EACH_TIME = (
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    *(b"tracestate: a=b", b"X-Request-Id: 1", b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http"),
    *(b"X-Forwarded-Host: a", b"Forwarded: for=192.0.2.1", b"X-Real-IP: 192.0.2.1", b"X-Customer-Id: acme"),
    *(b"Authorization: Bearer unknown", b"Authorization: Basic dTpw", b"X-API-Key: unknown"),
)


@pytest.mark.parametrize("line", REMEMBERED)
def test_a_line_that_will_come_again_is_remembered(line: bytes) -> None:
    meaning = REQUESTS.field(line)
    assert line in REQUESTS.passed if meaning is PASSED else REQUESTS.known[line] is meaning


@pytest.mark.parametrize("line", NEW_EACH_TIME)
def test_a_line_that_is_new_each_time_is_not_remembered(line: bytes) -> None:
    REQUESTS.field(line)
    assert line not in REQUESTS.known
    assert line not in REQUESTS.passed


def test_an_id_that_an_upstream_makes_is_not_remembered() -> None:
    assert response_field(b"X-Request-Id: 1") is DROPPED
    assert not RESPONSE_LINES


def test_a_key_is_remembered_once_it_is_vouched_for() -> None:
    line = b"Authorization: Bearer ek_1"
    REQUESTS.vouch(line + b"\r\nX-API-Key: ek_2\r\n")
    assert REQUESTS.known[line].kind is FieldKind.BEARER
    assert REQUESTS.known[line].value == b"ek_1"
    assert REQUESTS.known[b"X-API-Key: ek_2"].kind is FieldKind.API_KEY


def test_nothing_is_vouched_for_by_no_credentials() -> None:
    REQUESTS.vouch(b"")
    assert not REQUESTS.known


def test_every_memory_is_bounded() -> None:
    for number in range(2 * LINES_MOST + 10):
        REQUESTS.field(b"X-%d: 1" % number)
        REQUESTS.field(b"Upgrade: %d" % number)
        assert len(REQUESTS.known) <= LINES_MOST
        response_field(b"X-%d: 1" % number)
        plain_status(b"HTTP/1.1 200 %d" % number)
        assert max(len(REQUESTS.passed), len(RESPONSE_LINES), len(STATUS_LINES)) <= LINES_MOST
        assert max(len(REQUESTS.names), len(RESPONSE_NAMES)) <= NAMES_MOST


def test_known_keys_are_bounded_too() -> None:
    for number in range(2 * PINNED_MOST + 10):
        REQUESTS.vouch(b"X-API-Key: %d\r\n" % number)
        assert len(REQUESTS.known) <= PINNED_MOST
    REQUESTS.field(b"Accept: */*")
    assert len(REQUESTS.known) <= PINNED_MOST + LINES_MOST


def test_long_lines_names_and_status_lines_are_not_remembered() -> None:
    long = b"x" * LINE_LONGEST
    assert REQUESTS.field(b"A: " + long) is PASSED
    assert response_field(b"A: " + long) is PASSED
    assert REQUESTS.field(long + b"x: a") is PASSED
    assert plain_status(b"HTTP/1.1 200 " + long) == 200
    REQUESTS.vouch(b"X-API-Key: " + long + b"\r\n")
    assert not REQUESTS.known
    assert not REQUESTS.passed
    assert not RESPONSE_LINES
    assert not STATUS_LINES
    assert set(REQUESTS.names) == {b"A", b"X-API-Key"}


def test_a_malformed_line_is_refused_however_often_it_comes() -> None:
    for _ in range(2):
        with pytest.raises(RejectedError):
            REQUESTS.field(b"Na me: a")
        with pytest.raises(UpstreamError):
            response_field(b"Na me: a")
        with pytest.raises(RejectedError):
            REQUESTS.field(b"Accept")
    REQUESTS.field(b"Accept: a")
    with pytest.raises(RejectedError):  # a name that is known, but no colon
        REQUESTS.field(b"Accept")


STATUS = [
    ("RFC 9112 4", b"HTTP/1.1 200 OK", 200),
    ("RFC 9112 4 empty reason", b"HTTP/1.1 404 ", 404),
    ("RFC 9112 4 no space before an absent reason", b"HTTP/1.1 200", 0),
    ("RFC 9110 15.2 interim", b"HTTP/1.1 100 Continue", 0),
    ("RFC 9112 2.3 HTTP/1.0", b"HTTP/1.0 200 OK", 0),
    ("RFC 9112 4 malformed", b"HTTP/1.1 20 OK", 0),
]


@pytest.mark.parametrize(("rule", "line", "status"), STATUS, ids=[case[0] for case in STATUS])
def test_a_plain_status_line_is_one_that_may_be_passed_on_as_it_is(rule: str, line: bytes, status: int) -> None:
    assert plain_status(line) == status
