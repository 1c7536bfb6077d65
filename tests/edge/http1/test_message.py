"""The edge's own answers."""

import orjson
import pytest

from edgeproxy.edge.http1.message import (
    CONTINUE,
    LIMITED_END,
    REASONS,
    format_credits_spent,
    format_limited,
    format_problem,
    format_response,
    split_error,
)
from edgeproxy.edge.problem_codes import BY_LIMIT, CREDITS_SPENT, GENERAL, KEY_MISSING


def test_an_answer_is_a_status_line_fields_and_a_body_with_its_length() -> None:
    """RFC 9112 section 2.1."""
    assert format_response(404, b"Content-Type: text/plain\r\n", b"no\n") == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno\n"
    )


def test_closing_answer_has_connection_close() -> None:
    """RFC 9112 section 9.6."""
    assert (
        format_response(400, close=True)
        == b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


def test_the_answer_to_head_has_the_length_and_not_the_body() -> None:
    """RFC 9110 section 9.3.2."""
    assert format_response(200, b"", b"body", head_only=True) == b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


def test_a_204_has_neither_body_nor_length() -> None:
    """RFC 9110 section 8.6."""
    assert format_response(204, b"A: b\r\n", b"body") == b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"


def test_a_status_without_a_reason_phrase_keeps_its_space() -> None:
    """RFC 9112 section 4."""
    assert format_response(299).startswith(b"HTTP/1.1 299 \r\n")


def test_the_interim_answer_is_a_whole_head() -> None:
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("status", GENERAL)
def test_problem_without_a_code_has_the_code_of_its_status(status: int) -> None:
    assert orjson.loads(format_problem(status, "What happened", b"018f-id")) == {
        "type": GENERAL[status].type,
        "code": GENERAL[status].name,
        "title": REASONS[status],
        "status": status,
        "detail": "What happened",
        "instance": "018f-id",
    }


def test_a_problem_may_have_a_code_of_its_own() -> None:
    problem = orjson.loads(format_problem(401, "Who?", b"1", KEY_MISSING))
    assert (problem["type"], problem["code"], problem["status"]) == (KEY_MISSING.type, "key-missing", 401)


@pytest.mark.parametrize("kind", BY_LIMIT)
def test_a_refusal_by_a_limit_has_the_code_of_its_kind(kind: str) -> None:
    answer = format_limited(b"", ("a",), b"1", limit=(("name", "a"), ("kind", kind)))
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["code"] == BY_LIMIT[kind].name


@pytest.mark.parametrize("instance", [b"018f-id", b'018f"id'], ids=["safe", "quoted"])
@pytest.mark.parametrize("close", [False, True])
def test_a_refusal_by_limits_names_the_policies(instance: bytes, close: bool) -> None:
    """draft-ietf-httpapi-ratelimit-headers-10 section 5.1."""
    head, _, body = format_limited(b"Retry-After: 7\r\n", ("basic", "export"), instance, close=close).partition(
        b"\r\n\r\n"
    )
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 429 Too Many Requests",
        b"Content-Type: application/problem+json",
        b"Retry-After: 7",
        b"X-Request-Id: " + instance,
        b"Content-Length: %d" % len(body),
        *([b"Connection: close"] if close else []),
    ]
    assert orjson.loads(body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "code": "rate-exceeded",
        "status": 429,
        "detail": "Over the limit basic, export",
        "instance": instance.decode(),
        "violated-policies": ["basic", "export"],
    }


@pytest.mark.parametrize(
    ("detail", "stated"), [(None, "Prepaid credits are spent"), ("Buy some", "Buy some")], ids=["", "words"]
)
def test_spent_credits_answer_402_with_a_problem(detail: str | None, stated: str) -> None:
    head, _, body = format_credits_spent(b"X-A: 1\r\n", ("credits",), b"018f-id", detail=detail).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[:4] == [
        b"HTTP/1.1 402 Payment Required",
        b"Content-Type: application/problem+json",
        b"X-A: 1",
        b"X-Request-Id: 018f-id",
    ]
    assert orjson.loads(body) == {
        "type": CREDITS_SPENT.type,
        "code": "credits-spent",
        "title": "Prepaid credits are spent",
        "status": 402,
        "detail": stated,
        "violated-policies": ["credits"],
        "instance": "018f-id",
    }


@pytest.mark.parametrize("head_only", [False, True])
def test_the_operators_words_take_the_place_of_the_names(head_only: bool) -> None:
    words = 'Schreiben Sie "uns" \\ an'
    said = format_limited(b"", ("a",), b"1", detail=words)
    body = said.partition(b"\r\n\r\n")[2]
    assert (orjson.loads(body)["detail"], orjson.loads(body)["violated-policies"]) == (words, ["a"])
    assert b"Content-Length: %d\r\n" % len(body) in format_limited(b"", ("a",), b"1", detail=words, head_only=head_only)
    assert orjson.loads(format_limited(b"", ("a",), b"1").partition(b"\r\n\r\n")[2])["detail"] == "Over the limit a"


def test_a_refusal_of_head_has_the_length_of_the_body_that_get_would_have() -> None:
    """RFC 9110 section 9.3.2."""
    assert (
        format_limited(b"", ("a",), b"1", head_only=True)
        == format_limited(b"", ("a",), b"1").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    )


@pytest.mark.parametrize("instance", [b'"', b"\\", b'a"b\\c', b'","status":200,"x":"', bytes(range(33, 127))])
def test_a_request_id_cannot_break_out_of_its_string(instance: bytes) -> None:
    body = orjson.loads(format_problem(400, "No", instance))
    assert body["instance"] == instance.decode()
    assert body["status"] == 400


@pytest.mark.parametrize("close", [False, True])
def test_split_error_joined_by_an_id_is_a_complete_answer(close: bool) -> None:
    before, between = split_error(403, b"Content-Type: text/plain\r\n", b'{"id": "', 3, close=close)
    answer = before + b"abc" + between + b"abc" + LIMITED_END
    body = b'{"id": "abc' + LIMITED_END
    fields = b"Content-Type: text/plain\r\nX-Request-Id: abc\r\n"
    assert answer == format_response(403, fields, body, close=close)
