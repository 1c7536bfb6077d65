"""The cost of a request: the cost of its route, or the cost reported by its response."""

import json
from typing import Any

import pytest

from tests.edge.proxy.asking import asked, asks, is_limited, left, limited, request
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, head, ok, post

WITH_KEY = f"X-API-Key: {KEY}"


def adds_route(edge: Edge, **settings: Any) -> None:
    edge.config["routes"].append({"name": "export", "path": "/export/*", "upstream": "api", **settings})


# ---- the cost of a route


async def test_the_cost_of_a_route_is_charged_to_the_customers_limits(answering: Edge) -> None:
    adds_route(answering, cost=25)
    client = await answering.client()
    assert left(await asks(client, "/export/x"))[:2] == ("basic", 35)
    assert left(await asks(client))[:2] == ("basic", 34)
    assert left(await asks(client, "/export/x"))[:2] == ("basic", 9)
    answer = await asks(client, "/export/x")
    is_limited(answer, "basic")
    assert left(answer)[:2] == ("basic", 9)
    assert left(await asks(client))[:2] == ("basic", 8), "the remainder is enough for cheaper requests"
    assert answering.used() == {"basic": 52}
    answering.passes_time(int(answer["Retry-After"]))
    assert (await asks(client, "/export/x")).status == 200


async def test_a_cost_above_the_limit_is_refused_without_retry_after(answering: Edge) -> None:
    adds_route(answering, cost=61)
    answering.config["tiers"]["basic"]["message"] = "Write to us."
    client = await answering.client()
    answer = await asks(client, "/export/x")
    assert answer.status == 429
    assert "Retry-After" not in answer
    detail = "Such a request counts for 61, and basic never lets more than 60 pass. Write to us."
    assert json.loads(answer.body)["detail"] == detail
    assert (await asks(client)).status == 200, "other customers are served"


# ---- reported costs


@pytest.fixture
def told(edge: Edge) -> Edge:
    """An edge with a limit that is charged reported costs."""
    limited(edge, {"rate": "100/min", "cost_header": "X-Cost"})
    return edge


COST = "X-Cost: 12"
ANSWERS = {
    "whole": ok(b"hello", COST),
    "empty": ok(b"", COST),
    "chunked": head("HTTP/1.1 200 OK", COST, "Transfer-Encoding: chunked") + chunks(b"hello"),
    "no content": head("HTTP/1.1 204 No Content", COST),
    "not modified": head("HTTP/1.1 304 Not Modified", COST),
    "an error": head("HTTP/1.1 500 Oh", COST, "Content-Length: 0"),
    "the last": ok(b"hello", COST, "Connection: close"),
    "first of its fields": head("HTTP/1.1 200 OK", COST, "Content-Length: 0", "X-Other: 1"),
    "of HTTP/1.0": head("HTTP/1.0 200 OK", COST, "Content-Length: 0"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_response_reports_the_cost_of_its_request(told: Edge, name: str) -> None:
    client, upstream = await asked(told)
    assert told.used() == {"basic": 0}, "the cost is unknown before the response"
    answer = await upstream.tells(client, ANSWERS[name])
    assert answer.status < 600
    assert left(answer)[:2] == ("basic", 88), "RateLimit includes the reported cost"
    assert answer["X-Cost"] == "12"
    assert told.used() == {"basic": 12}


async def test_a_reported_cost_is_charged_once_with_the_head(told: Edge) -> None:
    client, upstream = await asked(told)
    await upstream.sends(head("HTTP/1.1 200 OK", COST, "Content-Length: 100"), b"begun")
    await client.gets_head()
    await client.gets(b"begun")
    assert told.used() == {"basic": 12}
    upstream.closes()
    await client.gets_reset()
    assert told.used() == {"basic": 12}


SAID = {
    "nothing": ((), 1),
    "zero": (("X-Cost: 0",), 0),
    "a number": (("X-Cost: 12",), 12),
    "more than a number has digits": ((f"X-Cost: {'9' * 9}",), 100),
    "more than any": ((f"X-Cost: {'9' * 5000}",), 100),
    "leading zeros": ((f"X-Cost: {'0' * 100}12",), 12),
    "white space": (("X-Cost:\t 12 \t",), 12),
    "no white space": (("X-Cost:12",), 12),
    "another case": (("x-cOST: 12",), 12),
    "an underscore": (("X_Cost: 12",), 1),
    "an empty value": (("X-Cost:",), 1),
    "less than nothing": (("X-Cost: -12",), 1),
    "a sign": (("X-Cost: +12",), 1),
    "a fraction": (("X-Cost: 1.5",), 1),
    "a word": (("X-Cost: many",), 1),
    "a number and more": (("X-Cost: 12 tokens",), 1),
    "a list": (("X-Cost: 12, 13",), 1),
    "another base": (("X-Cost: 0x12",), 1),
    "digits of another script": (("X-Cost: \xb2",), 1),
    "twice": (("X-Cost: 12", "X-Cost: 13"), 12),
    "once well": (("X-Cost: many", "X-Cost: 13"), 13),
    "a longer name": (("X-Cost-More: 12", "My-X-Cost: 13"), 1),
    "in another field": (("X-Other: X-Cost: 12",), 1),
}
"""Fields of a response, and the charge out of a hundred."""


@pytest.mark.parametrize("framing", ["Content-Length: 16", "Transfer-Encoding: chunked"])
async def test_an_invalid_cost_counts_as_not_reported(told: Edge, framing: str) -> None:
    body = b"\r\nX-Cost: 55\r\n\r\n"
    client = await told.client()
    for name, (fields, expected) in SAID.items():
        answered = head("HTTP/1.1 200 OK", *fields, framing) + (chunks(body) if "chunked" in framing else body)
        told.upstream.answers(lambda request, answered=answered: answered)  # type: ignore[misc]
        told.upstream.begins()
        answer = await asks(client)
        assert left(answer)[:2] == ("basic", 100 - expected), name
        assert (answer.status, answer.body) == (200, body), name
        told.passes_time(130)


async def test_without_a_reported_cost_the_cost_of_the_route_is_charged(told: Edge) -> None:
    adds_route(told, cost=7, limits=[{"rate": "30/min", "cost_header": "X-Cost"}])
    told.upstream.answers(lambda request: ok(b"", *(["X-Cost: 5"] if "/export/5" in request.first else [])))
    client = await told.client()
    await asks(client, "/export/x")
    assert told.used() == {"basic": 7, "export": 1}
    await asks(client, "/export/5")
    assert told.used() == {"basic": 12, "export": 6}
    await asks(client)
    assert told.used() == {"basic": 13, "export": 6}


@pytest.mark.parametrize("how", ["aborted", "fault", "refused"])
async def test_without_a_response_the_cost_of_the_route_is_charged(told: Edge, how: str) -> None:
    """Otherwise a client that leaves before the response would pay nothing."""
    if how == "refused":
        told.upstream.refuses()
        client = await told.client()
        answer = await asks(client)
        assert answer.status == 502
    else:
        client, upstream = await asked(told, post(b"", "/v1/x", WITH_KEY))
        if how == "aborted":
            client.aborts()
            await upstream.gets_cut()
        else:
            upstream.closes()
            assert (await client.gets_answer()).status == 502
    await told.until(lambda: told.used() == {"basic": 1})


async def test_a_retried_request_is_charged_once(told: Edge) -> None:
    client, stale = await asked(told)
    await stale.tells(client, ok(b"", "X-Cost: 2"))
    await client.sends(request())
    await stale.gets_request()
    stale.closes()
    another = await told.upstream.takes()
    assert left(await another.tells(client, ok(b"", "X-Cost: 3")))[:2] == ("basic", 95)


# ---- debt


async def test_requests_in_progress_are_charged_beyond_the_limit(told: Edge) -> None:
    waiting = [await asked(told) for _ in range(3)]
    lefts = []
    for client, upstream in waiting:
        lefts.append(left(await upstream.tells(client, ok(b"", "X-Cost: 60")))[1])
    assert lefts == [40, 0, 0]
    assert told.used() == {"basic": 180}
    is_limited(await asks(waiting[0][0]), "basic")


# ---- beside others


async def test_each_limit_has_its_own_cost_header(edge: Edge) -> None:
    limited(
        edge,
        {"name": "tokens", "rate": "1000/min", "cost_header": "X-Tokens"},
        {"name": "rows", "rate": "500/h", "cost_header": "X-Rows"},
        {"name": "calls", "rate": "400/day"},
    )
    said = ["X-Tokens: 100"]
    edge.upstream.answers(lambda request: ok(b"", *said))
    client = await edge.client()
    assert left(await asks(client))[:2] == ("calls", 399)
    assert edge.used() == {"tokens": 100, "rows": 1, "calls": 1}
    said[:] = ["X-Rows: 200"]
    assert left(await asks(client))[:2] == ("rows", 299), "the limit closest to refusal after the charge"
    said[:] = ["X-Tokens: 2000", "X-Rows: 7"]
    assert left(await asks(client))[:2] == ("tokens", 0)
    assert edge.used() == {"tokens": 2101, "rows": 208, "calls": 3}
    is_limited(await asks(client), "tokens")
    assert edge.used() == {"tokens": 2101, "rows": 208, "calls": 3}


async def test_a_cost_field_without_a_limit_has_no_effect(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(b"", "X-Cost: 50"))
    client = await edge.client()
    assert left(await asks(client))[:2] == ("basic", 59)
    assert (await asks(client, key=UNLIMITED))["X-Cost"] == "50"
