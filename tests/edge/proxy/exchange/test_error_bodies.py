"""Bodies of the edge's own errors, by route: an API's form, a template, and problems elsewhere."""

import json
from typing import Any

import pytest

from tests.edge.proxy.asking import asks, is_problem, limited
from tests.support.transcript import KEY, Edge, head, ok
from tests.support.wire import Message

MARKUP = "<b>Call us</b>"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["customers"]["acme"]["message"] = MARKUP
    edge.config["limits"] = {"body": "1KiB"}
    edge.config["routes"] = [
        {"name": "openai", "path": "/openai/*", "upstream": "api", "response_usage": "openai"},
        {"name": "anthropic", "path": "/anthropic/*", "upstream": "api", "errors": "anthropic"},
        {"name": "page", "path": "/page/*", "upstream": "api", "errors": {"text": "<p>{{status}} {{detail}}</p>"}},
        {"name": "api", "path": "/*", "upstream": "api"},
    ]
    edge.config["meters"] = {"requests": {"count": "requests"}, "output": {"count": "output_tokens"}}
    return edge


def is_openai(answer: Message, status: int) -> dict[str, Any]:
    assert (answer.status, answer["Content-Type"]) == (status, "application/json")
    body = json.loads(answer.body)
    assert body["request_id"] == answer["X-Request-Id"]
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


async def test_missing_key_error_has_the_format_of_the_route(edge: Edge) -> None:
    client = await edge.client()
    error = is_openai(await asks(client, "/openai/x", key=""), 401)
    assert (error["code"], "An API key is needed" in error["message"]) == ("invalid_api_key", True)
    anthropic = await asks(client, "/anthropic/x", key="")
    assert json.loads(anthropic.body)["error"]["type"] == "authentication_error"
    assert (await asks(client, "/page/x", key="")).body.startswith(b"<p>401 An API key")
    is_problem(await asks(client, "/x", key=""), 401)


@pytest.mark.parametrize("path", ["/openai/x", "/anthropic/x", "/page/x"])
async def test_limits_refuse_in_the_form_of_the_route_again_and_again(edge: Edge, path: str) -> None:
    """The second refusal repeats the first, with an id of its own."""
    limited(edge, {"rate": "1/min"})
    await edge.passes(head(f"GET {path} HTTP/1.1", "Host: h", f"X-API-Key: {KEY}"), ok())
    client = await edge.client()
    answers = [await asks(client, path) for _ in range(3)]
    assert len({answer["X-Request-Id"] for answer in answers}) == 3
    for answer in answers:
        assert answer.status == 429
        assert int(answer["Retry-After"]) >= 1
        assert answer["RateLimit-Policy"]
        body = answer.body.decode()
        assert "The rate limit is reached" in body
        if path == "/page/x":
            assert "&lt;b&gt;Call us&lt;/b&gt;" in body
        else:
            document = json.loads(body)
            assert document["request_id"] == answer["X-Request-Id"]
            assert document["error"]["type"] == "rate_limit_error"
            assert document["error"]["message"].endswith(MARKUP)
    assert (await asks(client, path, method="HEAD")).body == b""


async def test_upstream_error_has_the_format_of_the_route(edge: Edge) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    assert is_openai(await asks(client, "/openai/x"), 502)["type"] == "server_error"
    is_problem(await asks(client, "/x"), 502)


async def test_oversized_body_error_has_the_format_of_the_route(edge: Edge) -> None:
    data = head("POST /openai/x HTTP/1.1", "Host: h", f"X-API-Key: {KEY}", "Content-Length: 2000")
    assert is_openai(await edge.refuses(data, "POST"), 413)["code"] == "request_too_large"


async def test_a_head_that_cannot_be_read_has_the_form_of_its_route(edge: Edge) -> None:
    """Its path says which, as far as it can be read."""
    answer = await edge.refuses(head("GET /openai/%zz HTTP/1.1", "Host: h"))
    assert is_openai(answer, 400)["type"] == "invalid_request_error"


async def test_requests_of_no_route_have_the_form_of_the_top(edge: Edge) -> None:
    edge.config["routes"].pop()
    edge.config["errors"] = {"text": '{"no": "{{code}}"}', "type": "application/json"}
    assert json.loads((await edge.refuses(head("GET /nowhere HTTP/1.1", "Host: h"))).body) == {"no": "not_found"}


async def test_a_call_of_grpc_gets_its_own_form(edge: Edge) -> None:
    """Its status and sentence are made of a problem."""
    fields = ("Host: h", "Content-Type: application/grpc")
    is_problem(await edge.refuses(head("POST /openai/x HTTP/1.1", *fields), "POST"), 401)


async def test_a_route_that_a_customer_does_not_see_is_told_by_no_form(edge: Edge) -> None:
    """The 404 of a hidden route equals the 404 of an unknown path."""
    edge.config["flags"] = {"new": {"customers": ["free"]}}
    edge.config["routes"].insert(0, {"path": "/new/*", "upstream": "api", "flag": "new", "errors": "openai"})
    is_problem(await edge.refuses(head("GET /new/x HTTP/1.1", "Host: h", f"X-API-Key: {KEY}")), 404)
