"""The edge's own answers."""

import json
from html import unescape

import orjson
import pytest

from edgeproxy.edge.http1.error_bodies import ANTHROPIC, CODES, END, OPENAI, TemplateErrors
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


# ---- bodies of errors in the forms of other APIs


ODD = 'a "quote", a \\ and </script><script>alert(1)</script> & \u2028 ü'
"""A detail with markup: names of limits and an operator's messages may have any."""
ID = b'client"chosen<id>'
"""A trusted proxy states the id, so it may be a client's."""


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "invalid_request_error", "invalid_api_key"),
        (402, "insufficient_quota", "insufficient_quota"),
        (404, "invalid_request_error", "not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (502, "server_error", "upstream_failed"),
        (503, "server_error", "unavailable"),
        (504, "server_error", "upstream_timeout"),
    ],
)
def test_openai_errors_have_message_type_and_code(status: int, kind: str, code: str) -> None:
    assert json.loads(OPENAI.format_body(status, ODD, ID)) == {
        "error": {"message": ODD, "type": kind, "param": None, "code": code},
        "request_id": ID.decode(),
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_anthropic_errors_have_type_and_message(status: int, kind: str) -> None:
    assert json.loads(ANTHROPIC.format_body(status, ODD, ID)) == {
        "type": "error",
        "error": {"type": kind, "message": ODD},
        "request_id": ID.decode(),
    }


def test_every_error_status_has_a_code() -> None:
    assert CODES.keys() == {status for status in REASONS if status >= 400} - {410}


@pytest.mark.parametrize("bodies", [OPENAI, ANTHROPIC])
def test_an_opening_and_the_end_are_a_body(bodies: type[OPENAI]) -> None:
    opening = bodies.format_opening(429, ODD)
    assert opening is not None
    assert opening + b"id" + END == bodies.format_body(429, ODD, b"id")


def test_values_in_a_page_stay_text() -> None:
    page = TemplateErrors(
        '<p title="{{ detail }}">{{detail}}</p>{{request_id}} {{status}} {{title}} {{code}}', "text/html"
    )
    body = page.format_body(429, ODD, ID).decode()
    assert page.line == b"Content-Type: text/html; charset=utf-8\r\n"
    assert page.format_opening(429, ODD) is None
    assert "<script" not in body
    assert "client&quot;chosen&lt;id&gt; 429 Too Many Requests rate_limit_exceeded" in body
    assert unescape(body).count(ODD) == 2


@pytest.mark.parametrize("media_type", ["application/json", "application/vnd.own+json"])
def test_values_in_json_stay_texts(media_type: str) -> None:
    template = TemplateErrors('{"e": "{{detail}}", "n": {{status}}, "id": "{{request_id}}"}', media_type)
    body = template.format_body(503, ODD, ID)
    assert json.loads(body) == {"e": ODD, "n": 503, "id": ID.decode()}
    assert b"<" not in body
    assert template.line == b"Content-Type: %b\r\n" % media_type.encode()


def test_values_in_plain_text_are_as_they_are() -> None:
    assert TemplateErrors("{{detail}}\n", "text/plain").format_body(400, ODD, ID) == f"{ODD}\n".encode()
