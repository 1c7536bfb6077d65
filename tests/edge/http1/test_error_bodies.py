"""Bodies of errors in the forms of other APIs, and by templates whose values stay text."""

import json
from html import unescape

import pytest

from edgeproxy.edge.http1.error_bodies import ANTHROPIC, CODES, END, OPENAI, TemplateErrors
from edgeproxy.edge.http1.message import REASONS

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
